"""`python -m tests.crash.soak [--minutes N] [--rate N] [--seed N]`: mixed work under the nemesis, for as long as told.

Three workers and two submitters on one file, each a process; the nemesis kills, stops and ends them, except for one
worker that is stopped now and then and lives on, and whose memory and claims are watched. What has finished is kept
for a minute. At the end everything has to be accounted for, and flat. Exit code 0: it is. 1: it is not.
Writes `soak.json` with every sample, and `soak.log` with what the processes had to say, into the folder given by
`--folder` (default: `.soak`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.crash.harness import Site
from tests.crash.nemesis import Nemesis
from tests.crash.samples import JUDGED_FROM_S, MIB, Sampler, Trend, as_rows, slope_mib_per_hour, trends

ROOT: Final = Path(__file__).parents[2]
LEASE_S: Final = 2.0
PAUSE_S: Final = 4.0
"""Between two deeds of the nemesis, on average: a process needs most of a second to start, and is to do some work."""
HISTORY: Final = "60s"
"""How long finished runs are kept. An outcome may wait for the writer while a process is stopped that holds it, and its
age counts from the end of the attempt: it is to be seen before it is pruned."""
RATE: Final = 40.0
"""Operations a second of each submitter."""


@dataclass
class Soaked:
    """What came of it."""

    seed: int
    seconds: float
    violations: list[str] = field(default_factory=list)
    tally: dict[str, dict[str, int]] = field(default_factory=dict)
    deeds: dict[str, int] = field(default_factory=dict)
    dead_by_themselves: list[int] = field(default_factory=list)
    trends: list[Trend] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    slope_mib_per_hour: float = 0.0
    log: str = ""
    """What the processes had to say, tracebacks among it."""
    start_delay_ms: tuple[float, float] = (0.0, 0.0)
    """Median and p99 of the time between due and started, over all that succeeded at once."""

    @property
    def is_judged(self) -> bool:
        return self.seconds >= JUDGED_FROM_S

    @property
    def is_sound(self) -> bool:
        return not self.violations and not self.dead_by_themselves

    @property
    def is_flat(self) -> bool:
        return all(trend.is_flat for trend in self.trends)

    @property
    def succeeded(self) -> int:
        return sum(states.get("succeeded", 0) for states in self.tally.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "seconds": round(self.seconds),
            "sound": self.is_sound,
            "flat": self.is_flat if self.is_judged else None,
            "violations": self.violations,
            "ended": self.tally,
            "deeds": self.deeds,
            "died by themselves": self.dead_by_themselves,
            "trends": [
                {
                    "what": trend.name,
                    "unit": trend.unit,
                    "second quarter": round(trend.second, 3),
                    "last quarter": round(trend.last, 3),
                    "at most": round(trend.most, 3),
                    "flat": trend.is_flat,
                }
                for trend in self.trends
            ],
            "memory slope, MiB an hour": round(self.slope_mib_per_hour, 2),
            "start delay, ms (median, p99)": self.start_delay_ms,
            "machine": {
                "python": platform.python_version(),
                "sqlite": sqlite3.sqlite_version,
                "system": platform.platform(),
                "cores": os.cpu_count(),
            },
            "samples": self.samples,
        }


async def soak(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    rate: float = RATE,
    pause_s: float = PAUSE_S,
    history: str = HISTORY,
    look_every_s: float = 5.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Soaked:
    """Soak one store in a folder."""
    result = Soaked(seed, seconds)
    async with Site(folder, history=history) as site:
        worker = ("--lease", str(LEASE_S), "--grace", "1")
        steady = site.worker(*worker, "--timings", str(folder / "claims.txt"))
        victims = [site.worker(*worker) for _ in range(2)]
        submitters = [site.submitter(name, "--seed", str(seed), "--rate", str(rate)) for name in ("s1", "s2")]
        sampler = Sampler(folder / "store.db", steady, [*victims, *submitters], folder / "claims.txt")
        with ExitStack() as stack:
            for program in (steady, *victims, *submitters):
                stack.enter_context(program)
            nemesis = Nemesis(
                seed,
                [*victims, *submitters],
                is_up=site.is_up,
                spared=[steady],
                lease_s=LEASE_S,
                pause_s=pause_s,
            )
            haunting = asyncio.create_task(nemesis.haunt())
            await _watch(site, sampler, nemesis, seconds, look_every_s, tell)
            assert not haunting.done(), f"the nemesis ended by itself: {haunting.exception()!r}"
            haunting.cancel()
            await asyncio.wait([haunting])
            await _stop(submitters)
            await site.until_empty()
            await _stop([steady, *victims])
        await site.finish()
        result.violations = site.violations()
        result.tally = site.tally()
        result.start_delay_ms = _start_delay_ms(site)
        result.log = site.log
    result.deeds = dict(nemesis.deeds)
    result.dead_by_themselves = nemesis.dead_by_themselves
    result.samples = as_rows(sampler.samples)
    result.trends = trends(sampler.samples, sampler.claims_us())
    result.slope_mib_per_hour = slope_mib_per_hour(sampler.samples)
    return result


async def _watch(
    site: Site,
    sampler: Sampler,
    nemesis: Nemesis,
    seconds: float,
    look_every_s: float,
    tell: Callable[[str], None],
) -> None:
    began_s = time.monotonic()
    while (at_s := time.monotonic() - began_s) < seconds:
        await asyncio.sleep(look_every_s)
        site.gather()
        [(unfinished, history)] = site.rows(
            "SELECT (SELECT count(*) FROM lineshaft_run), (SELECT count(*) FROM lineshaft_run_history)"
        )
        sampler.look(at_s, int(str(unfinished)), int(str(history)))
        sample = sampler.samples[-1]
        tell(
            f"{at_s / 60:5.1f} of {seconds / 60:g} min  {site.accepted:>9,} accepted  {unfinished:>6,} unfinished"
            f"  {nemesis.deeds.total():>5,} deeds  worker {sample.steady_rss_bytes / MIB:6.1f} MiB"
            f"  store {sample.store_bytes / MIB:6.1f} MiB  log {sample.log_bytes / MIB:5.1f} MiB"
        )


async def _stop(programs: list[Any]) -> None:
    """Have them end by themselves."""
    for program in programs:
        if program.alive:
            program.send(signal.SIGTERM)
    waits: list[Awaitable[int]] = [asyncio.to_thread(program.wait) for program in programs if program.alive]
    await asyncio.gather(*waits)


def _start_delay_ms(site: Site) -> tuple[float, float]:
    """Between due and started, of what was executed once."""
    query = "SELECT started_us - due_us FROM ended WHERE state = 'succeeded' AND attempts = 1 ORDER BY 1"
    delays = [row[0] / 1_000 for row in site.trail.rows.execute(query)]
    if not delays:
        return 0.0, 0.0
    return round(delays[len(delays) // 2], 2), round(delays[int(len(delays) * 0.99)], 2)


def show(result: Soaked, console: Console) -> None:
    """The outcome as tables."""
    ends = Table(title=f"{result.seconds / 60:g} minutes, seed {result.seed}", title_justify="left")
    ends.add_column("Kind of work")
    states = sorted({state for each in result.tally.values() for state in each})
    for state in states:
        ends.add_column(state, justify="right")
    for kind, counts in sorted(result.tally.items()):
        ends.add_row(kind, *(f"{counts[state]:,}" if state in counts else "" for state in states))
    console.print(ends)
    flat = Table()
    for name in ("", "Second quarter", "Last quarter", "At most", ""):
        flat.add_column(name, justify="right" if name else "left")
    for trend in result.trends:
        figures = (f"{value:,.2f} {trend.unit}".rstrip() for value in (trend.second, trend.last, trend.most))
        flat.add_row(trend.name, *figures, "flat" if trend.is_flat else "[bold red]grows")
    console.print(flat)
    deeds = ", ".join(f"{count:,} × {deed}" for deed, count in result.deeds.items())
    console.print(
        f"The nemesis: {deeds}. Memory slope {result.slope_mib_per_hour:+.1f} MiB an hour; from due to started"
        f" {result.start_delay_ms[0]:g} ms in the median, {result.start_delay_ms[1]:g} ms at p99.",
        highlight=False,
    )
    for violation in result.violations:
        console.print(violation, style="red", markup=False, soft_wrap=True)
    if not result.is_sound:
        console.print(f"Not sound. Died by themselves: {result.dead_by_themselves}", style="bold red")
    elif not result.is_judged:
        console.print("Everything is accounted for; too short to judge what is flat.", style="bold green")
    elif result.is_flat:
        console.print("Everything is accounted for, and flat.", style="bold green")
    else:
        console.print("Everything is accounted for, but not everything is flat.", style="bold red")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=RATE, help="operations a second of each submitter")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, default=ROOT / ".soak")
    options = parser.parse_args()
    console = Console()
    options.folder.mkdir(exist_ok=True)
    # On this disk: a temporary directory may live in memory, where a durable commit costs nothing.
    with tempfile.TemporaryDirectory(prefix="store-", dir=options.folder) as folder:
        result = asyncio.run(
            soak(
                Path(folder),
                seconds=options.minutes * 60,
                seed=options.seed,
                rate=options.rate,
                tell=lambda line: console.print(line, highlight=False, soft_wrap=True),
            )
        )
    (options.folder / "soak.json").write_text(json.dumps(result.as_json(), indent=1) + "\n")
    (options.folder / "soak.log").write_text(result.log)
    show(result, console)
    console.print(
        f"Every sample is in {options.folder / 'soak.json'}; what the processes said in soak.log beside it.",
        highlight=False,
        soft_wrap=True,
    )
    return 0 if result.is_sound and (result.is_flat or not result.is_judged) else 1


if __name__ == "__main__":
    sys.exit(main())
