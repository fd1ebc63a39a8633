"""The rounds of a run: every bench of every subject once a round, so that a busy hour hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import machine
from benchmarks.measurement import Measurement, Results
from benchmarks.peers.benches import MEASURES, Task
from benchmarks.peers.stage import Place
from benchmarks.peers.subject import BENCHES, Subject

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and how often."""

    subjects: Sequence[Subject]
    rounds: int = 3
    benches: Sequence[str] = BENCHES
    once: frozenset[str] = frozenset({"kill"})
    """Benches that are done in the first round only."""
    backlog: int = 100_000
    scale: float = 1.0

    def steps(self) -> Iterator[tuple[int, str, Subject]]:
        """Round, bench and subject of each step. Each round begins with another subject."""
        for number in range(self.rounds):
            for bench in self.benches:
                if number and bench in self.once:
                    continue
                start = number * len(self.subjects) // max(self.rounds, 1)
                for subject in [*self.subjects[start:], *self.subjects[:start]]:
                    if bench in subject.benches:
                        yield number, bench, subject


@dataclass(slots=True)
class Run:
    """A run under way."""

    plan: Plan
    place: Place
    tell: Tell
    results: Results = field(init=False)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place.work.mkdir(parents=True, exist_ok=True)
        self.results = Results(machine.now(), machine.describe(self.place.work))

    def step(self, number: int, bench: str, subject: Subject) -> None:
        """Measure one bench of one subject. What raises is told, and leaves a hole in this round."""
        sizes = subject.sizes.scaled(self.plan.scale)
        task = Task(self.place, subject, sizes, round(self.plan.backlog * self.plan.scale))
        calibration_ms = round(machine.calibration_ms(), 2)
        began_s = time.perf_counter()
        said = []
        try:
            for found in MEASURES[bench](task):
                value = None if found.value is None else float(f"{found.value:.6g}")
                measurement = Measurement(
                    found.bench,
                    subject.name,
                    subject.config,
                    found.metric,
                    found.unit,
                    settings=found.settings,
                    versions=found.versions,
                )
                self._put(number, measurement, value, calibration_ms)
                said.append(f"{found.metric} {value:,.5g}" if value is not None else f"{found.metric} –")
        except Exception as error:  # one subject that fails must not end the others
            self.failures.append(f"{bench}, {subject.title}: {error}")
            said.append(f"FAILED: {error}")
        took_s = time.perf_counter() - began_s
        self.tell(
            f"{bench:8} {subject.title:45} {', '.join(said)}  [{took_s:.0f} s, loop {calibration_ms} ms]"
        )

    def _put(self, number: int, found: Measurement, value: float | None, calibration_ms: float) -> None:
        """Put a value into its round: rounds that found nothing leave a hole."""
        known = self.results.get(*found.key) or self.results.add(found)
        for all_rounds, this_round in ((known.values, value), (known.calibration_ms, calibration_ms)):
            all_rounds.extend([None] * (number - len(all_rounds)))
            all_rounds.append(this_round)


def named(subjects: Sequence[Subject], only: Sequence[str]) -> list[Subject]:
    """The subjects of these names; Lineshaft among them in any case, since ratios are taken to it."""
    unknown = set(only) - {subject.name for subject in subjects}
    if unknown:
        known = ", ".join(dict.fromkeys(subject.name for subject in subjects))
        raise ValueError(f"There is no subject {', '.join(sorted(unknown))}; there are {known}.")
    chosen = {"lineshaft", *only}
    return [subject for subject in subjects if not only or subject.name in chosen]
