"""Lineshaft alone: its aims and what was measured, then every other figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import ge, le
from typing import Final

from benchmarks.measurement import Measurement, Results, Summary
from benchmarks.report.numbers import NOTHING, both, number, table

PAGE: Final = "reference/performance.md"
SUBJECT: Final = "lineshaft"


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure that the design asks for."""

    work: str
    bench: str
    config: str
    metric: str
    holds: Callable[[float, float], bool]
    value: float

    def row(self, results: Results) -> list[str]:
        found = results.get(self.bench, SUBJECT, self.config, self.metric)
        unit = f" {found.unit}" if found and found.unit != "×" else ""
        sign = "at least" if self.holds is ge else "at most"
        return [
            self.work,
            f"{sign} {number(self.value)}{unit}",
            f"{both(found.summary)}{unit}" if found else NOTHING,
            self._verdict(found.summary if found else None),
        ]

    def _verdict(self, summary: Summary | None) -> str:
        if summary is None:
            return NOTHING
        return "yes" if self.holds(summary.median, self.value) else "**no**"


AIMS: Final = (
    Aim("drain a backlog, 1 process", "drain", "1 process", "rate", ge, 30_000),
    Aim("`submit_many`", "submit_many", "calls of 10,000", "rate", ge, 80_000),
    Aim("`submit_many` with keys", "submit_many", "calls of 10,000, fresh keys", "rate", ge, 40_000),
    Aim("`submit` during a drain, 99 of 100", "beside", "one at a time, during a drain", "p99", le, 25),
    Aim("`submit` to `result`, idle, half of them", "latency", "worker in the same process", "p50", le, 1),
    Aim("`submit` to `result`, idle, 99 of 100", "latency", "worker in the same process", "p99", le, 3),
    Aim("drain from 5,000,000 queued against 20,000", "backlog", "drain, 5,000,000 queued", "ratio", ge, 0.9),
    Aim("bare claims from 5,000,000 against 1,000", "backlog", "claims, 5,000,000 queued", "ratio", ge, 0.9),
    Aim("limits and tenants on against off", "limits", "limits, a rate and 100 tenants", "ratio", ge, 0.8),
    Aim("`import lineshaft`", "import", "import lineshaft", "time", le, 100),
    Aim("idle worker, memory", "idle", "lineshaft worker", "resident memory", le, 60),
    Aim("idle worker, CPU", "idle", "lineshaft worker", "CPU", le, 0.5),
)

TITLES: Final = {
    "drain": "Draining a backlog",
    "submit_many": "Submitting with `submit_many`",
    "submit": "Submitting one by one",
    "beside": "Submitting while another process drains",
    "latency": "`submit` to `result` on an idle system",
    "limits": "Limits and tenants on; the ratio is to the same work with them off",
    "kinds": "Other kinds of tasks, one process",
    "blocked": "A million runs that cannot run now, in front of others; the ratio is to the same drain without them",
    "backlog": "Deep backlogs; the ratio is to 1,000 queued (claims), or to nothing behind the drained (drains)",
    "import": "Starting",
    "idle": "A worker with nothing to do",
}
COUNTED: Final = ("lost", "doubled")


def files(results: Results) -> Mapping[str, Mapping[str, str]]:
    """The sections of the page about performance."""
    return {PAGE: {"engine-aims": _aims(results), "engine-figures": _figures(results)}}


def _aims(results: Results) -> str:
    return "\n\n".join(
        [
            _machine(results),
            table(["work", "aim", "measured", "met"], [aim.row(results) for aim in AIMS]),
            _accounts(results),
        ]
    )


def _machine(results: Results) -> str:
    machine, versions = results.machine, next((found.versions for found in results), {})
    rounds = max((len(found.values) for found in results), default=0)
    return (
        f"Taken on {results.taken[:10]}: {machine['cores']} cores ({machine['processor']}),"
        f" {machine['memory_gib']} GiB, {machine['file_system']} with {machine['fsync_ms']} ms a sync,"
        f" Python {machine['python']}, SQLite {machine['sqlite']},"
        f" {', '.join(f'{name} {version}' for name, version in versions.items())}."
        f" Medians of {rounds} rounds; the smallest and the largest value stand in brackets."
    )


def _accounts(results: Results) -> str:
    """What became of all the runs that worker processes executed."""
    counts = {
        name: sum(value or 0 for found in results if found.metric == name for value in found.values)
        for name in COUNTED
    }
    drains = sum(len(found.values) for found in results if found.metric == COUNTED[0])
    return f"In the {drains} drains of all rounds {counts['lost']:,.0f} runs were lost and {counts['doubled']:,.0f} executed twice."


def _figures(results: Results) -> str:
    parts = []
    for bench, title in TITLES.items():
        found = [each for each in results if each.bench == bench and each.metric not in COUNTED]
        if found:
            parts += [f"### {title}", _table(found)]
    return "\n\n".join(parts)


def _table(found: list[Measurement]) -> str:
    metrics = dict.fromkeys((each.metric, each.unit) for each in found)
    by_config: dict[str, dict[tuple[str, str], Summary | None]] = {}
    for each in found:
        by_config.setdefault(each.config, {})[each.metric, each.unit] = each.summary
    header = ["", *(metric if unit == "×" else f"{metric}, {unit}" for metric, unit in metrics)]
    return table(
        header,
        [[config, *(both(values.get(metric)) for metric in metrics)] for config, values in by_config.items()],
    )
