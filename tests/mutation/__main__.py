"""Plant faults one by one, and see whether the tests find them: `make mutation`.

Each fault is planted in a copy of the project, in a process group of its own that is killed when it takes too long.
Where the budget is short, what is tried is a sample by chance, the same for the same seed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.targets import EQUIVALENT, TARGETS

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "examples", "pyproject.toml", "docs", "README.md", "Makefile")
PATIENCE = 5.0
"""A fault is found too where the tests take so many times longer than without it, and then half a minute."""


@dataclass
class Score:
    """What became of the faults in one module."""

    planted: int = 0
    tried: int = 0
    survivors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = self.tried - len(self.survivors)
        share = f"{100 * found / self.tried:5.1f} %" if self.tried else "    – "
        return f"{found:5} of {self.tried:5} found  {share}   ({self.planted} possible)"


class Copy:
    """A copy of the project, in which tests are run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)

    def passes(self, tests: Sequence[str], timeout_s: float, *, keep_bytecode: bool = False) -> bool:
        """Whether the tests pass in time; whatever they started is ended."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._folder / "src"),
            # The compiled form of a fault must not outlive it.
            "PYTHONDONTWRITEBYTECODE": "" if keep_bytecode else "1",
        }
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "--hypothesis-seed=0",
                *tests,
            ],
            cwd=self._folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def baseline_s(self, tests: Sequence[str]) -> float:
        """How long the tests take without a fault."""
        began_s = time.monotonic()
        if not self.passes(tests, 900, keep_bytecode=True):
            raise SystemExit(f"Without any fault these tests do not pass: {' '.join(tests)}")
        return time.monotonic() - began_s

    @contextmanager
    def fault(self, module: str, mutant: Mutant) -> Iterator[None]:
        path = self._folder / "src" / "lineshaft" / module
        source = path.read_bytes()
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_bytes(mutant.applied_to(source))
        try:
            yield
        finally:
            path.write_bytes(source)


def planned(modules: Sequence[str], seed: int) -> list[tuple[str, Mutant, str]]:
    """What to try, in the order of chance: module, fault, and the fault as a line of text."""
    plan = []
    for module in modules:
        source = (ROOT / "src" / "lineshaft" / module).read_bytes()
        for mutant in mutants(source):
            before, after = mutant.lines(source)
            if not {(module, after), (module, f"{before} → {after}")} & EQUIVALENT.keys():
                text = f"{module}:{mutant.line(source)}\n    - {before}\n    + {after}"
                plan.append((module, mutant, text))
    random.Random(seed).shuffle(plan)
    return plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="budget; 0 for all that can be planted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("modules", nargs="*", help="like core/duration.py; all, where none is named")
    options = parser.parse_args()
    # However it is ended, the tests that it runs end with it, and the copy goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted"))
    wanted = [module for module in TARGETS if not options.modules or module in options.modules]
    plan = planned(wanted, options.seed)
    scores = {module: Score() for module in wanted}
    for module, _, _ in plan:
        scores[module].planted += 1
    deadline_s = time.monotonic() + (options.minutes * 60 or float("inf"))
    baselines_s: dict[tuple[str, ...], float] = {}
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Copy(Path(folder))
        for module, mutant, text in plan:
            if time.monotonic() > deadline_s:
                break
            tests, score = TARGETS[module], scores[module]
            if tests not in baselines_s:
                baselines_s[tests] = copy.baseline_s(tests)
            with copy.fault(module, mutant):
                survived = copy.passes(tests, PATIENCE * baselines_s[tests] + 30)
            score.tried += 1
            if survived:
                score.survivors.append(text)
                print(f"survived  {text}", flush=True)
    report(scores, options.seed)


def report(scores: dict[str, Score], seed: int) -> None:
    print(f"\nFaults found by the tests (seed {seed}):\n")
    for module, score in scores.items():
        print(f"  {module:30} {score}")
    total = Score(
        sum(score.planted for score in scores.values()),
        sum(score.tried for score in scores.values()),
        [text for score in scores.values() for text in score.survivors],
    )
    print(f"  {'in all':30} {total}\n")


if __name__ == "__main__":
    main()
