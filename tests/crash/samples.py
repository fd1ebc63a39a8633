"""What a soak measures as it goes, and whether it is flat: memory, descriptors, files, the time of claims.

The first quarter of a soak is warming up: caches fill, the file finds its size. What is judged is the last quarter
against the second, so that what grows slowly shows. A short soak is measured and not judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Final

import psutil

from lineshaft.core import bounds
from tests.support import Program

MIB: Final = 1_048_576
LOG_BYTES_MAX: Final = 256 * MIB
"""The bound that the documentation states for the write-ahead log."""
THREADS_MAX: Final = bounds.CONCURRENCY_THREAD + 24
"""Those that execute tasks come with the load and stay; beside them writer, readers, heart, transactions, and those of
`asyncio.to_thread`."""
JUDGED_FROM_S: Final = 600.0
"""Shorter soaks are not judged: their quarters say little."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. The steady worker is the one that the nemesis does not kill."""

    at_s: float
    steady_rss_bytes: int
    steady_descriptors: int
    steady_threads: int
    children_rss_bytes: int
    """Of the steady worker's pool."""
    rss_bytes: int
    """Of all processes together, as far as they live."""
    store_bytes: int
    log_bytes: int
    other_bytes: int
    """The files of the locks, and the shared memory of the log."""
    unfinished: int
    history: int


@dataclass(frozen=True, slots=True)
class Trend:
    """A measure in the second and in the last quarter, and what it may be in the last."""

    name: str
    unit: str
    second: float
    last: float
    most: float

    @property
    def is_flat(self) -> bool:
        return self.last <= self.most


class Sampler:
    """Looks at the processes and files of one site."""

    def __init__(self, store: Path, steady: Program, others: Sequence[Program], timings: Path) -> None:
        self._store = store
        self._steady = steady
        self._others = others
        self._timings = timings
        self.samples: list[Sample] = []

    def look(self, at_s: float, unfinished: int, history: int) -> None:
        assert self._steady.process is not None
        steady = psutil.Process(self._steady.process.pid)
        with steady.oneshot():
            rss, descriptors, threads = steady.memory_info().rss, steady.num_fds(), steady.num_threads()
        children = sum(_rss_bytes(child.pid) for child in steady.children())
        others = sum(_rss_bytes(each.process.pid) for each in self._others if each.process is not None)
        store, log = _size(self._store), _size(Path(f"{self._store}-wal"))
        beside = sum(_size(path) for path in self._store.parent.glob(f"{self._store.name}-*"))
        self.samples.append(
            Sample(
                at_s=round(at_s, 1),
                steady_rss_bytes=rss,
                steady_descriptors=descriptors,
                steady_threads=threads,
                children_rss_bytes=children,
                rss_bytes=rss + children + others,
                store_bytes=store,
                log_bytes=log,
                other_bytes=beside - log,
                unfinished=unfinished,
                history=history,
            )
        )

    def claims_us(self) -> list[tuple[float, list[int]]]:
        """When the steady worker claimed, and how long each claim took."""
        if not self._timings.exists():
            return []
        return [
            tuple(json.loads(line)) for line in self._timings.read_text().splitlines() if line.endswith("]")
        ]


def quarters(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The second and the last quarter."""
    size = max(1, len(samples) // 4)
    return samples[size : 2 * size], samples[-size:]


def trends(samples: Sequence[Sample], claims_us: Sequence[tuple[float, list[int]]]) -> list[Trend]:
    """What is to be flat, with the room that noise needs."""
    second, last = quarters(samples)

    def typical(read: Callable[[Sample], int]) -> tuple[float, float]:
        return median(map(read, second)), median(map(read, last))

    def most(read: Callable[[Sample], int]) -> tuple[float, float]:
        return max(map(read, second)), max(map(read, last))

    found = []
    before, after = (value / MIB for value in typical(lambda sample: sample.steady_rss_bytes))
    found.append(Trend("memory of the steady worker", "MiB", before, after, before * 1.05 + 4))
    before, after = (value / MIB for value in typical(lambda sample: sample.children_rss_bytes))
    found.append(Trend("memory of its pool", "MiB", before, after, before * 1.05 + 4))
    before, after = typical(lambda sample: sample.steady_descriptors)
    found.append(Trend("descriptors of the steady worker", "", before, after, before + 4))
    before, after = most(lambda sample: sample.steady_threads)
    found.append(Trend("threads of the steady worker", "", before, after, THREADS_MAX))
    before, after = most(lambda sample: sample.history)
    found.append(Trend("finished runs that are kept", "", before, after, before * 1.5 + 500))
    before, after = (value / MIB for value in most(lambda sample: sample.store_bytes))
    found.append(Trend("size of the database", "MiB", before, after, before * 1.25 + 2))
    before, after = (value / MIB for value in most(lambda sample: sample.log_bytes))
    found.append(Trend("size of its log", "MiB", before, after, LOG_BYTES_MAX / MIB))
    before, after = (value / MIB for value in most(lambda sample: sample.other_bytes))
    found.append(Trend("size of the other files", "MiB", before, after, 1.0))
    return [*found, *_claim_trends(claims_us)]


def _claim_trends(claims_us: Sequence[tuple[float, list[int]]]) -> Iterator[Trend]:
    """The time of claims, of which a machine with other work to do has a few that are long."""
    size = len(claims_us) // 4
    windows = [
        [taken for _, each in part for taken in each]
        for part in (claims_us[size : 2 * size], claims_us[-size:])
    ]
    if size == 0 or min(map(len, windows)) < 100:
        return
    before, after = (median(window) / 1_000 for window in windows)
    yield Trend("claim, median", "ms", before, after, before * 1.5 + 0.1)
    before, after = (quantiles(window, n=100)[98] / 1_000 for window in windows)
    yield Trend("claim, p99", "ms", before, after, before * 2 + 1)


def slope_mib_per_hour(samples: Sequence[Sample]) -> float:
    """Of the steady worker's memory over the second half, by least squares."""
    half = samples[len(samples) // 2 :]
    at_h = [sample.at_s / 3_600 for sample in half]
    rss = [sample.steady_rss_bytes / MIB for sample in half]
    middle_h, middle = fmean(at_h), fmean(rss)
    spread = sum((each - middle_h) ** 2 for each in at_h)
    if spread == 0:
        return 0.0
    return sum((x - middle_h) * (y - middle) for x, y in zip(at_h, rss, strict=True)) / spread


def as_rows(samples: Sequence[Sample]) -> list[dict[str, float]]:
    return [asdict(sample) for sample in samples]


def _rss_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
