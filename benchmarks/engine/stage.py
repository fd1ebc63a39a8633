"""What a benchmark is given: a folder on the disk, how large and how often, and where its values go."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine.terminal import Terminal
from benchmarks.measurement import Measurement, Results, Value

PACKAGES = ("lineshaft", "pydantic", "sqlalchemy", "uvloop")


class Stage:
    """One benchmark's share of a run of all of them."""

    def __init__(
        self, bench: str, results: Results, folder: Path, rounds: int, scale: float, terminal: Terminal
    ) -> None:
        self.bench = bench
        self.terminal = terminal
        self._results = results
        self._folder = folder
        self._rounds = rounds
        self._scale = scale
        self._calibration_ms: Value = None
        self._versions = {package: version(package) for package in PACKAGES}

    def size(self, count: int, at_least: int = 1) -> int:
        """How many of something there are at this scale."""
        return max(at_least, round(count * self._scale))

    def rounds(self) -> Iterator[int]:
        """The numbers of the rounds. How busy the machine is, is looked at before each."""
        for number in range(self._rounds):
            self._calibration_ms = machine.calibration_ms()
            yield number

    def store(self, name: str) -> str:
        """The address of a store that does not exist yet."""
        self.remove(name)
        (self._folder / name).mkdir(parents=True)
        return f"sqlite:///{self._folder / name / 'store.db'}"

    def remove(self, name: str) -> None:
        """Free the disk of a store."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def record(self, config: str, metric: str, unit: str, value: Value, **settings: Any) -> None:
        """Put down what one round found."""
        found = self._results.add(
            Measurement(
                self.bench,
                "lineshaft",
                config,
                metric,
                unit,
                [value],
                {"synchronous": "FULL", **settings},
                self._versions,
                [self._calibration_ms],
            )
        )
        self.terminal.found(found)
