"""Where attempts execute, and how many more each place can take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lineshaft.core import bounds
from lineshaft.core.errors import InvalidSetting
from lineshaft.engine.declare import Declaration
from lineshaft.engine.registry import Registry

LOOP, THREAD, PROCESS, TRANSACTION = "loop", "thread", "process", "transaction"
"""Places; each batch task is a place of its own besides."""
BATCHES_AHEAD = 2
"""Batches of one task that a worker holds: one executes while the next gathers."""


def place_of(task: Declaration) -> str:
    """Where the runs of a task execute."""
    if task.batch is not None:
        return f"batch of {task.name} {task.version}"
    if task.signature.transaction is not None:
        return TRANSACTION
    if task.run_in == "process":
        return PROCESS
    return LOOP if task.is_async else THREAD


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How much one worker executes at once."""

    on_loop: int = bounds.CONCURRENCY_ASYNC
    threads: int = bounds.CONCURRENCY_THREAD
    processes: int = 2
    runs_per_process_max: int = 1_000
    """Runs after which a process of the pool is replaced."""
    process_bytes_max: int | None = None
    """Resident memory at which a process of the pool is killed, and its attempt fails."""

    def __post_init__(self) -> None:
        for name in ("on_loop", "threads", "processes", "runs_per_process_max", "process_bytes_max"):
            value = getattr(self, name)
            if value is None and name == "process_bytes_max":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidSetting(
                    f"Concurrency {name} is {value!r}; it must be a whole number of at least 1."
                )


class Places:
    """Counts what is in flight where."""

    def __init__(self, registry: Registry, concurrency: Concurrency) -> None:
        self._capacity = {
            LOOP: concurrency.on_loop,
            THREAD: concurrency.threads,
            PROCESS: concurrency.processes * 2,
            TRANSACTION: bounds.TRANSACTION_GROUP_MAX * 4,
        }
        for task in registry.tasks():
            if task.batch is not None:
                self._capacity[place_of(task)] = task.batch * BATCHES_AHEAD
        self._used = dict.fromkeys(self._capacity, 0)
        self._threads_busy = 0

    def add(self, place: str, count: int) -> None:
        self._used[place] += count

    def thread_busy(self, change: int) -> None:
        """A thread began or ended; one that outlasts its attempt keeps its place taken."""
        self._threads_busy += change

    def free(self) -> Mapping[str, int]:
        free = {place: capacity - self._used[place] for place, capacity in self._capacity.items()}
        free[THREAD] = min(free[THREAD], self._capacity[THREAD] - self._threads_busy)
        return free

    def is_roomy(self) -> bool:
        """Whether some place is half empty: claiming for less than that is not worth a transaction."""
        return any(self._used[place] * 2 <= capacity for place, capacity in self._capacity.items())

    @property
    def in_flight(self) -> int:
        return sum(self._used.values())
