"""What a benchmark found: every single value, with the settings and versions that it was found with.

One JSON document a benchmark, `results/NAME.json`:

    {"taken": "2026-08-01T12:00:00+00:00",
     "machine": {"cores": 2, "kernel": "…", "fsync_ms": 0.2, …},
     "measurements": [{"bench": "drain", "subject": "lineshaft", "config": "1 process", "metric": "rate",
                       "unit": "runs/s", "values": [17400.0, null, 18100.0],
                       "settings": {…}, "versions": {…}, "calibration_ms": [11.2, 11.9, 11.4]}, …]}

`values` has one entry a round, in the order of the rounds, and null for a round in which nothing could be measured:
ratios are taken between values of the same round, since a machine is not equally fast at two hours.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

RESULTS: Final = Path(__file__).parent / "results"

Value = float | None
"""What one round found; None if it found nothing."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle of some values, and how far they lie apart."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[Value]) -> Self | None:
        """The summary of what was found; None if nothing was."""
        found = [value for value in values if value is not None]
        return cls(statistics.median(found), min(found), max(found), len(found)) if found else None


@dataclass(slots=True)
class Measurement:
    """One metric of one subject in one configuration, over all rounds."""

    bench: str
    """What was done: `drain`, `latency`, …"""
    subject: str
    """Who did it: `lineshaft`, `celery`, …"""
    config: str
    """How it was set up, in a few words; `settings` has all of it."""
    metric: str
    unit: str
    values: list[Value] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    calibration_ms: list[Value] = field(default_factory=list)
    """What a fixed loop took right before each value: how busy the machine was."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.bench, self.subject, self.config, self.metric

    @property
    def summary(self) -> Summary | None:
        return Summary.of(self.values)

    def ratio_to(self, other: Measurement) -> Summary | None:
        """How many times the other's value this one is, taken round by round."""
        pairs = zip(self.values, other.values, strict=False)
        return Summary.of(mine / its if mine is not None and its else None for mine, its in pairs)


@dataclass(slots=True)
class Results:
    """Everything that one run of a benchmark found."""

    taken: str
    """When it began, ISO 8601 with its offset."""
    machine: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def get(self, bench: str, subject: str, config: str, metric: str) -> Measurement | None:
        """The one measurement of these names, if there is one."""
        key = (bench, subject, config, metric)
        return next((found for found in self.measurements if found.key == key), None)

    def add(self, found: Measurement) -> Measurement:
        """Put a value or more beside those of earlier rounds, or begin a new measurement with them."""
        known = self.get(*found.key)
        if known is None:
            self.measurements.append(found)
            return found
        known.values += found.values
        known.calibration_ms += found.calibration_ms
        return known

    def write(self, path: Path) -> None:
        """Write the document, one measurement a line, so that a difference of two of them can be read."""
        head = json.dumps({"taken": self.taken, "machine": self.machine}, ensure_ascii=False, indent=1)
        lines = ",\n  ".join(json.dumps(asdict(found), ensure_ascii=False) for found in self.measurements)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{head[:-2]},\n "measurements": [\n  {lines}\n ]\n}}\n', "utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The document of a file. Raises TypeError if it is not of this format."""
        document = json.loads(path.read_text("utf-8"))
        document["measurements"] = [Measurement(**found) for found in document["measurements"]]
        return cls(**document)
