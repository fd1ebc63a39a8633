"""`python -m benchmarks.peers`: measure, and write what was found. `make bench-peers` does it with all environments."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.measurement import RESULTS
from benchmarks.peers.catalogue import SUBJECTS
from benchmarks.peers.rounds import Plan, Run, named
from benchmarks.peers.stage import ROOT, Place
from benchmarks.peers.subject import BENCHES

HOME = ROOT / ".bench-peers"


def main() -> int:
    """Measure what the command line asks for. Exit code 1 if something could not be measured.

    Only a whole run, of three rounds or more, in which nothing failed takes the place of the results that are committed.
    """
    options = _options()
    plan = Plan(
        named(SUBJECTS, options.only),
        options.rounds,
        options.bench or BENCHES,
        backlog=options.backlog,
        scale=options.scale,
    )
    whole = not options.only and not options.bench and options.scale == 1 and options.rounds >= 3
    partial = HOME / "peers.json"
    place = Place(HOME, HOME / "work")
    steps = list(plan.steps())
    shutil.rmtree(place.work, ignore_errors=True)
    try:
        with _progress() as shown:
            bar = shown.add_task("", total=len(steps))
            run = Run(plan, place, lambda text: shown.console.print(text, markup=False, highlight=False))
            if options.note:
                run.results.machine["note"] = options.note
            for number, bench, subject in steps:
                shown.update(
                    bar, description=f"round {number + 1} of {plan.rounds}: {bench}, {subject.title}"
                )
                run.step(number, bench, subject)
                run.results.write(partial)  # what was found so far stays if this is stopped
                shown.advance(bar)
    finally:
        shutil.rmtree(place.work, ignore_errors=True)
    out = RESULTS / "peers.json" if whole and not run.failures else partial
    run.results.write(out)
    print(f"Written: {out.relative_to(ROOT)}")
    for failure in run.failures:
        print(f"Could not be measured: {failure}", file=sys.stderr)
    return 1 if run.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--only", nargs="*", default=[], help="only these subjects, beside lineshaft")
    parser.add_argument("--bench", nargs="*", choices=BENCHES, help="only these benches")
    parser.add_argument("--backlog", type=int, default=100_000, help="length of the long backlog")
    parser.add_argument("--scale", type=float, default=1, help="factor on all sizes; below 1 for a quick try")
    parser.add_argument("--note", help="what a reader of the results has to know about this run")
    return parser.parse_args()


def _progress() -> Progress:
    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(soft_wrap=True),
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave no server behind
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
