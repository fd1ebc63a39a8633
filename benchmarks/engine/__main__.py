"""`python -m benchmarks.engine`: measure, and write `benchmarks/results/engine.json`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from pathlib import Path

from rich.console import Console

from benchmarks import machine
from benchmarks.engine.catalogue import CATALOGUE
from benchmarks.engine.stage import Stage
from benchmarks.engine.terminal import Terminal
from benchmarks.measurement import RESULTS, Results

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for."""
    given = _parser().parse_args(arguments)
    folder = given.folder.absolute() / "engine"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results = Results(machine.now(), machine.describe(folder))
    console = Console(stderr=True)
    console.print(f"Stores lie in {folder}, on {results.machine['file_system']}.", highlight=False)
    if results.machine["file_system"] == "tmpfs":
        console.print("A durable commit costs nothing in memory: these figures say little about a disk.")
    # What is measured at another scale is not what the names say, and does not belong among the results.
    out = given.out or (RESULTS / "engine.json" if given.scale == 1.0 else given.folder / "scaled.json")
    before = list(Results.read(out)) if given.only and out.exists() else []
    began_s = time.monotonic()
    try:
        with Terminal(console) as terminal:
            for benchmark in CATALOGUE:
                if given.only and benchmark.name not in given.only:
                    continue
                terminal.begin(benchmark.name, benchmark.about)
                stage = Stage(benchmark.name, results, folder, given.rounds, given.scale, terminal)
                asyncio.run(benchmark.measure(stage))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    measured = {found.bench for found in results}
    results.measurements += [found for found in before if found.bench not in measured]
    results.write(out)
    console.print(f"{out} was written after {time.monotonic() - began_s:,.0f} s.", highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    names = [benchmark.name for benchmark in CATALOGUE]
    parser.add_argument("--rounds", type=int, default=3, help="how often each value is taken (3)")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=names,
        metavar="NAME",
        help=f"only these of {', '.join(names)}; others stay",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.1 measures with a tenth of all runs")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="on the disk that is measured")
    parser.add_argument("--out", type=Path, help="where the results go, if not to benchmarks/results")
    return parser


if __name__ == "__main__":
    main()
