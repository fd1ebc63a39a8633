"""`python -m tests.crash.flights_kills [--kills N] [--limit N] [--seed N]`: the flights application, killed and killed.

Kills the program of `make run` with SIGKILL so many times in a row, at random moments, starting it again each
time; then lets it run to its end, and compares what its ledger adds up to with the totals that are known. About every
third kill comes while the program starts, the others after a random amount of further work, so that they are spread
over all of it: settling flights, computing reports, filing them.
"""

from __future__ import annotations

import argparse
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from rich.console import Console

from examples.flights.data import flight_count, flights, flights_by_day
from examples.flights.rules import assess, dollars

ROOT: Final = Path(__file__).parents[2]
AGREES: Final = "Totals agree to the cent"
KNOWN: Final = {
    "cancelled": (8_255, 24_296_300_000),
    "compensated": (3_897, 13_926_495_000),
    "not due": (323_449, 0),
    "undetermined": (1_175, 0),
}
"""Flights and cents by outcome of the whole year, from a run in which nothing was killed."""
REPORT_FLIGHTS: Final = 200
"""A day's report counts as so many flights, when the kills are spread over the work."""
LOOK_S: Final = 0.1


class WrongTotals(Exception):
    """What must not be."""


@dataclass
class Kill:
    """What had been done by then."""

    phase: str
    flights: int
    reports: int


@dataclass
class Campaign:
    """One store, and the program on it."""

    folder: Path
    limit: int | None
    chance: random.Random
    kills: list[Kill] = field(default_factory=list)
    ended_by_itself: list[str] = field(default_factory=list)
    """What it said when it ended with an error."""

    def start(self) -> subprocess.Popen[str]:
        limit = [] if self.limit is None else ["--limit", str(self.limit)]
        command = [sys.executable, "-m", "examples.flights", "--store", f"sqlite:///{self.store}", *limit]
        with (self.folder / "output.txt").open("w") as output:
            return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True)

    @cached_property
    def work(self) -> int:
        """All there is to do, in flights."""
        days = sum(1 for _ in flights_by_day(self.limit))
        return flight_count(self.limit) + days * REPORT_FLIGHTS

    @property
    def store(self) -> Path:
        return self.folder / "flights.db"

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

    def rows(self, statement: str) -> list[tuple[int, ...]]:
        """What a query finds; nothing before there are tables."""
        if not self.store.exists():
            return []
        connection = sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()

    def done(self) -> tuple[int, int]:
        """Flights settled and reports filed."""
        found = self.rows("SELECT (SELECT count(*) FROM ledger), (SELECT count(*) FROM day_report)")
        return (found[0][0], found[0][1]) if found else (0, 0)

    def kill_once(self, left: int) -> bool:
        """Start the program, and kill it where chance says; `left` kills are to follow.

        False if it ended by itself before that, with an error.
        """
        before = self.done()
        program = self.start()
        try:
            if self.chance.random() < 0.33:
                phase = self._wait_while_starting(program)
            else:
                phase = self._wait_for_work(program, before, left)
            if program.poll() == 0:
                raise WrongTotals(
                    f"It was done before it could be killed {left + 1} times more:\n{self.output}"
                )
            if program.poll() is not None:
                # On a machine too slow for its bounds (a transaction of some seconds, say) it says so and ends.
                self.ended_by_itself.append(self.output)
                return False
            program.send_signal(signal.SIGKILL)
        finally:
            program.kill()
            program.wait()
        self.kills.append(Kill(phase, *self.done()))
        return True

    def _wait_while_starting(self, program: subprocess.Popen[str]) -> str:
        try:
            program.wait(self.chance.uniform(0.05, 2.5))
        except subprocess.TimeoutExpired:
            return "starting"
        return "ended"

    def _wait_for_work(self, program: subprocess.Popen[str], before: tuple[int, int], left: int) -> str:
        began = before[0] + before[1] * REPORT_FLIGHTS
        enough = began + self.chance.uniform(0, 2 * (self.work - began) / (left + 2))
        while program.poll() is None:
            settled, filed = self.done()
            if settled + filed * REPORT_FLIGHTS > max(began, enough):
                return "reporting" if filed else "settling"
            time.sleep(LOOK_S * self.chance.random())
        return "ended"

    def finish(self) -> None:
        """Let it run to its end."""
        program = self.start()
        if program.wait() != 0 or AGREES not in self.output:
            raise WrongTotals(self.output)

    def check(self) -> None:
        """The ledger's own sums, and nothing left in the engine that did not go well."""
        found = {
            outcome: (count, cents)
            for outcome, count, cents in self.rows(
                "SELECT outcome, count(*), sum(cents) FROM ledger GROUP BY 1"
            )
        }
        expected = KNOWN if self.limit is None else _computed(self.limit)
        wanted = {
            "SELECT count(*) - count(DISTINCT flight_key) FROM ledger": 0,
            "SELECT sum(flights) FROM day_report": flight_count(self.limit),
            "SELECT count(*) FROM lineshaft_run": 0,
            "SELECT count(*) FROM lineshaft_run_history WHERE state <> 'succeeded'": 0,
            "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'": 0,
        }
        wrong = [
            f"{query}: {self.rows(query)}"
            for query, value in wanted.items()
            if self.rows(query) != [(value,)]
        ]
        if found != expected or wrong:
            raise WrongTotals(f"{found} instead of {expected}; {wrong}")


def _computed(limit: int) -> dict[str, tuple[int, int]]:
    """The totals of the first flights, from the data alone."""
    counts, cents = Counter[str](), Counter[str]()
    for flight in flights(limit):
        assessment = assess(flight)
        counts[assessment.outcome.value] += 1
        cents[assessment.outcome.value] += assessment.cents
    return {outcome: (count, cents[outcome]) for outcome, count in counts.items()}


def campaign(folder: Path, limit: int | None, kills: int, seed: int, console: Console) -> None:
    """Kill so often, finish, check; raises `WrongTotals`."""
    work = Campaign(folder, limit, random.Random(seed))
    began_s = time.monotonic()
    while (number := len(work.kills) + 1) <= kills:
        if not work.kill_once(kills - number):
            console.print(work.ended_by_itself[-1].strip(), style="red", markup=False, soft_wrap=True)
            if len(work.ended_by_itself) > kills:
                raise WrongTotals("It ends by itself too often.")
            continue
        kill = work.kills[-1]
        console.print(
            f"kill {number:>2} of {kills}  {kill.phase:<9}  {kill.flights:>7,} flights settled,"
            f" {kill.reports:>3} days reported",
            highlight=False,
        )
    work.finish()
    work.check()
    phases = ", ".join(f"{count} {phase}" for phase, count in Counter(k.phase for k in work.kills).items())
    [(cents,)] = work.rows("SELECT sum(cents) FROM ledger")
    console.print(
        f"{kills} kills ({phases}; ended by itself {len(work.ended_by_itself)} times) in {time.monotonic() - began_s:,.0f} s, seed {seed}: every total is as it was,"
        f" {flight_count(limit):,} flights and {dollars(cents)} USD.",
        style="bold green",
        highlight=False,
        soft_wrap=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.flights_kills")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    console = Console()
    console.print(f"seed {options.seed}", highlight=False)
    try:
        # Beside the checkout: a temporary directory may live in memory, where nothing survives a power failure.
        with tempfile.TemporaryDirectory(prefix=".flights-kills-", dir=ROOT) as folder:
            campaign(Path(folder), options.limit, options.kills, options.seed, console)
    except WrongTotals as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
