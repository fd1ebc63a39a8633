"""`python -m examples.flights [--limit N] [--store URL]`: settle, report, show and check.

Exit code 0: done, and the totals agree. 1: the totals differ. 2: cannot start. 130: stopped; start it again
to continue.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import sys
from collections import Counter
from contextlib import suppress
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from examples.flights import ledger
from examples.flights.app import app
from examples.flights.check import check, readable
from examples.flights.data import DataNotInstalled, UnreadableRow, carrier_names
from examples.flights.display import Display
from examples.flights.drive import report_all, settle_all
from examples.flights.ledger import CarrierLine
from examples.flights.rules import Outcome, dollars
from lineshaft import LineshaftError

STOPPED: Final = 130
COLUMNS: Final = {
    "Flights": None,
    "Compensated": Outcome.COMPENSATED,
    "Cancelled": Outcome.CANCELLED,
    "Undetermined": Outcome.UNDETERMINED,
}


def main() -> int:
    """Run the application as the command line says; return the exit code."""
    options = _options()
    store = options.store or os.environ.get("LINESHAFT_STORE") or default_store(options.limit)
    os.environ["LINESHAFT_STORE"] = store  # pool processes open the same store
    console = Console()
    again = shlex.join(["python", "-m", "examples.flights", *sys.argv[1:]])
    try:
        return asyncio.run(_until_stopped(options.limit, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print(
            f"\nStopped. What was settled is kept in {store}; to continue, start it again: {again}",
            soft_wrap=True,
        )
        return STOPPED
    except (DataNotInstalled, UnreadableRow, LineshaftError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 2


def default_store(limit: int | None) -> str:
    """A file in the current directory; each limit has its own, so that they do not mix."""
    return f"sqlite:///flights-{limit}.db" if limit else "sqlite:///flights.db"


async def _until_stopped(limit: int | None, console: Console) -> int:
    """SIGTERM stops as Ctrl-C does: the worker finishes what it holds, and the program ends."""
    work = asyncio.current_task()
    assert work is not None
    with suppress(NotImplementedError):  # Windows knows no signal handlers of event loops
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    return await _settle_and_check(limit, console)


async def _settle_and_check(limit: int | None, console: Console) -> int:
    async with app:
        async with app.transaction() as tx:
            await ledger.create_tables(tx.session)
        async with app.worker():
            with Display(console) as display:
                await settle_all(limit, display)
                await report_all(limit, display)
        async with app.transaction() as tx:
            lines = await ledger.carrier_lines(tx.session)
        console.print(by_carrier(lines, carrier_names()))
        with console.status("Computing the totals directly from the data …"):
            differences = await check(limit)
    if differences:
        console.print(f"{len(differences):,} differences from a direct computation:", style="bold red")
        for line in readable(differences):
            console.print(line, markup=False, soft_wrap=True)
        return 1
    console.print("Totals agree to the cent with a direct computation.", style="bold green")
    return 0


def by_carrier(lines: list[CarrierLine], names: dict[str, str]) -> Table:
    """The ledger as a table with its totals, the largest amount first."""
    counts = {(line.carrier, line.outcome): line.entries for line in lines}
    cents = Counter[str]()
    for line in lines:
        cents[line.carrier] += line.cents

    def entries(outcome: Outcome | None, code: str | None = None) -> str:
        return f"{sum(n for (c, o), n in counts.items() if code in (None, c) and outcome in (None, o)):,}"

    table = Table(  # as narrow as possible: amounts and names stay whole on 80 columns
        title="Compensation by carrier",
        show_footer=True,
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    table.add_column("Carrier", "All", no_wrap=True)
    for title, outcome in COLUMNS.items():
        table.add_column(title, entries(outcome), justify="right", no_wrap=True)
    table.add_column("USD", dollars(cents.total()), justify="right", no_wrap=True)
    for code in sorted(cents, key=lambda code: (-cents[code], code)):
        row = [entries(outcome, code) for outcome in COLUMNS.values()]
        table.add_row(names.get(code, code), *row, dollars(cents[code]))
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights",
        description="Settle passenger compensation for every flight out of New York in 2013.",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N flights")
    parser.add_argument(
        "--store",
        metavar="URL",
        help="where to keep everything; default LINESHAFT_STORE, or flights.db in the current directory",
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of flights; give 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
