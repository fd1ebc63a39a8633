"""Lineshaft beside its peers: the tables and the chart of docs/reference/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from benchmarks.measurement import Measurement, Results, Summary
from benchmarks.report.chart import Bar, Panel, chart
from benchmarks.report.numbers import NOTHING, both, median, number, table, times
from benchmarks.report.sections import Rendered

OURS: Final = "lineshaft"
ON_DISK: Final = "power loss"

NAMES: Final = {"arq": "arq", "dbos": "DBOS"}
"""How a name is written, where it does not simply begin with a capital letter."""

Key = tuple[str, str]
"""Subject and configuration."""


def files(results: Results) -> Rendered:
    """The page's sections, and the chart."""
    return {
        "reference/performance.md": {
            "peers-drain": _drain(results),
            "peers-latency": _latency(results),
            "peers-footprint": _footprint(results),
            "peers-backlog": _backlog(results),
            "peers-kill": _kill(results),
            "peers-setup": _setup(results),
            "peers-versions": _versions(results),
        },
        "reference/peers.svg": _chart(results),
    }


def _name(subject: str) -> str:
    return NAMES.get(subject, subject.capitalize())


def _title(key: Key) -> str:
    return f"{_name(key[0])}, {key[1]}"


def _rows(results: Results, bench: str) -> list[Key]:
    """Who took part in a bench: subject by subject, each in the order of its configurations."""
    subjects = list(dict.fromkeys(found.subject for found in results))
    took_part = dict.fromkeys((found.subject, found.config) for found in results if found.bench == bench)
    return sorted(took_part, key=lambda key: subjects.index(key[0]))


def _ours(key: Key) -> Key:
    """The configuration of Lineshaft that a peer's is compared with: as many processes."""
    return OURS, "2 processes" if "2 processes" in key[1] else "1 process"


def _times_as_fast(
    results: Results, key: Key, bench: str, metric: str, *, higher_is_better: bool = True
) -> str:
    """How many times as fast as this one Lineshaft was."""
    ours, theirs = results.get(bench, *_ours(key), metric), results.get(bench, *key, metric)
    if ours is None or theirs is None or key[0] == OURS:
        return NOTHING
    return times(ours.ratio_to(theirs) if higher_is_better else theirs.ratio_to(ours))


def _summary(results: Results, key: Key, bench: str, metric: str) -> Summary | None:
    found = results.get(bench, *key, metric)
    return found.summary if found else None


def _sum(results: Results, key: Key, bench: str, metric: str) -> str:
    found = results.get(bench, *key, metric)
    counted = [value for value in found.values if value is not None] if found else []
    return f"{sum(counted):,.0f}" if counted else NOTHING


def _survives(results: Results, key: Key) -> str:
    found = next(
        one for one in results if (one.subject, one.config) == key and "accepted survives" in one.settings
    )
    return str(found.settings["accepted survives"])


def _drain(results: Results) -> str:
    rows = [
        [
            _title(key),
            _survives(results, key),
            both(_summary(results, key, "drain", "rate")),
            _times_as_fast(results, key, "drain", "rate"),
            both(_summary(results, key, "submit", "many")),
            _times_as_fast(results, key, "submit", "many"),
            _sum(results, key, "drain", "lost"),
            _sum(results, key, "drain", "doubled"),
        ]
        for key in _rows(results, "drain")
    ]
    header = ["", "accepted survives", "drained, runs/s", "Lineshaft", "submitted, runs/s", "Lineshaft"]
    return table([*header, "lost", "doubled"], rows)


def _latency(results: Results) -> str:
    rows = [
        [
            _title(key),
            _survives(results, key),
            both(_summary(results, key, "latency", "p50")),
            _times_as_fast(results, key, "latency", "p50", higher_is_better=False),
            both(_summary(results, key, "latency", "p99")),
            both(_summary(results, key, "submit", "one")),
            _times_as_fast(results, key, "submit", "one"),
        ]
        for key in _rows(results, "latency")
    ]
    header = ["", "accepted survives", "half, ms", "Lineshaft", "99 of 100, ms", "one by one, runs/s"]
    return table([*header, "Lineshaft"], rows)


def _footprint(results: Results) -> str:
    rows = [
        [
            _name(key[0]),
            both(_summary(results, key, "import", "import")),
            median(_summary(results, key, "idle", "rss")),
            median(_summary(results, key, "idle", "pss")),
            both(_summary(results, key, "idle", "cpu")),
        ]
        for key in _rows(results, "import")
    ]
    return table(["", "import, ms", "idle, MiB resident", "of these its share", "idle, % of a core"], rows)


def _backlog(results: Results) -> str:
    rows = []
    for key in _rows(results, "backlog"):
        found = results.get("backlog", *key, "ratio")
        rows.append(
            [
                _name(key[0]),
                f"{found.settings['few']:,}" if found else NOTHING,
                both(_summary(results, key, "backlog", "rate with few")),
                f"{found.settings['many']:,}" if found else NOTHING,
                both(_summary(results, key, "backlog", "rate with many")),
                both(_summary(results, key, "backlog", "ratio")),
            ]
        )
    return table(["", "few", "runs/s", "many", "runs/s", "ratio"], rows)


def _kill(results: Results) -> str:
    rows = [
        [
            _name(key[0]),
            _sum(results, key, "kill", "accepted"),
            _sum(results, key, "kill", "lost"),
            _sum(results, key, "kill", "doubled"),
            median(_summary(results, key, "kill", "recovery")),
        ]
        for key in _rows(results, "kill")
    ]
    return table(["", "accepted", "lost", "doubled", "recovered, s"], rows)


def _setup(results: Results) -> str:
    machine = results.machine
    rounds = max(len(found.values) for found in results)
    said = [
        f"Taken {results.taken[:10]}, {rounds} rounds, on {machine['cores']} cores ({machine['processor']}),"
        f" {machine['memory_gib']:.0f} GiB, {machine['system']}, Python {machine['python']}, SQLite"
        f" {machine['sqlite']}, {machine['file_system']}. An fsync took {machine['fsync_ms']:.2f} ms."
    ]
    if loop := Summary.of(chain.from_iterable(found.calibration_ms for found in results)):
        said.append(
            f"A fixed loop, timed before each measurement to show how busy the machine was, took {number(loop.median)}"
            f" ms in the middle, and between {number(loop.low)} and {number(loop.high)} ms in all."
        )
    if note := machine.get("note"):
        said.append(f"**{note}**")
    return " ".join(said)


def _versions(results: Results) -> str:
    rows = []
    for subject in dict.fromkeys(found.subject for found in results):
        found = next(one for one in results if one.subject == subject and one.versions)
        named = (f"{name} {number}" for name, number in found.versions.items() if name != "python")
        rows.append([_name(subject), ", ".join(named)])
    return table(["", "versions"], rows).replace("---:", "---")


def _chart(results: Results) -> str:
    panels = [
        Panel(
            "Draining a backlog, longer is better", "runs/s", list(_bars(results, "drain", "rate", best=max))
        ),
        Panel(
            "Submit to result on an idle system, median, shorter is better",
            "ms",
            list(_bars(results, "latency", "p50", best=min)),
        ),
    ]
    return chart(panels, "accepted runs survive power loss", "they survive less than that")


def _bars(
    results: Results, bench: str, metric: str, *, best: Callable[[float, float], float]
) -> Iterator[Bar]:
    """A bar for each configuration that was measured, the best first."""
    found: list[tuple[Measurement, Summary]] = [
        (one, one.summary) for one in results if (one.bench, one.metric) == (bench, metric) and one.summary
    ]
    direction = -1 if best is max else 1
    for one, summary in sorted(found, key=lambda pair: direction * pair[1].median):
        hollow = one.settings["accepted survives"] != ON_DISK
        yield Bar(_name(one.subject), one.config, summary, ours=one.subject == OURS, hollow=hollow)
