"""One seed, played and judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.simulation import checker, rare
from tests.simulation.script import play
from tests.simulation.world import Record, simulation


@dataclass
class Verdict:
    """What became of a seed."""

    seed: int
    digest: str = ""
    violations: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    """What went wrong in it, by kind."""
    runs: int = 0
    steps: int = 0
    virtual_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Verdict:
        counts = {name: Counter(fields.pop(name)) for name in ("reached", "faults")}
        return cls(**fields, **counts)


STRIKES = ("killed", "killed by its run", "stalled", "drains", "clock set", "gave up")


def judge(seed: int) -> Verdict:
    """Play a seed once."""
    try:
        with simulation(seed, play) as record:
            return judged(record)
    except Exception as error:
        return Verdict(seed, violations=[f"the simulation itself failed: {error!r}"])


def judged(record: Record) -> Verdict:
    """What a record shows; called while its file is there."""
    case = checker.read(record.events, record.file, clocks_agree=record.profile.clocks_agree)
    faults = Counter(event["fault"] for event in case.of["fault"])
    faults.update({strike: len(case.of[strike]) for strike in STRIKES if case.of[strike]})
    return Verdict(
        seed=record.seed,
        digest=record.digest,
        violations=checker.violations(case),
        reached=+rare.reached(case),
        faults=faults,
        runs=len(case.runs),
        steps=record.steps_taken,
        virtual_s=round(record.virtual_s, 1),
    )


def judge_twice(seed: int) -> Verdict:
    """Play it twice: another history the second time is a violation too."""
    verdict, second = judge(seed), judge(seed)
    if verdict.digest != second.digest:
        verdict.violations.append(
            f"the second time it was another history: {verdict.digest}, {second.digest}"
        )
    return verdict
