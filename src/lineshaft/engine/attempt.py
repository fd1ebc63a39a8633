"""One attempt in flight: the run it is of, how long it has taken, and whether it is to stop."""

from __future__ import annotations

import asyncio
import math
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from lineshaft.core.clock import thread_cpu_ns
from lineshaft.engine.declare import Declaration
from lineshaft.store.values import Claimed, Gate, Slots


class Stop(Enum):
    """Why an attempt is stopped from outside."""

    CANCELLED = auto()
    DRAINED = auto()
    LEASE_LOST = auto()


@dataclass(slots=True, eq=False)
class Attempt:
    """What a worker keeps of a run that it holds."""

    run: Claimed
    task: Declaration
    place: str
    gates: tuple[Gate, ...]
    worker: int
    """The incarnation that claimed it; by the time it ends the worker may be another one."""
    started_us: int = 0
    cpu_ns: int = 0
    stop: Stop | None = None
    running: asyncio.Task[Any] | None = None
    together: Sequence[Attempt] = ()
    """The attempts of its batch, itself among them; `running` is one task for all of them."""
    begun: bool = False
    """Whether user code may have started; what has not is handed back at once."""
    deadline_s: float = math.inf
    """When its timeout is over, by the monotonic clock; watched by the worker."""
    timed_out: bool = False
    submitted: bool = False
    """Whether its transaction carried submissions."""
    reported: bool = False
    """Whether it has reported progress."""
    waits: Callable[[], None] | None = None
    """Told when the function waits for the first time."""

    @property
    def number(self) -> int:
        return self.run.attempts + 1

    @property
    def slots(self) -> tuple[str, ...]:
        """The concurrency limits of which it holds a slot."""
        return slots_of(self.gates)

    def interrupt(self, stop: Stop) -> None:
        """Stop it: an async function gets a CancelledError, a thread is asked, a process is killed."""
        if self.stop is None:
            self.stop = stop
            self._cancel()

    def expire(self) -> None:
        """Its time is over."""
        if not self.timed_out and self.stop is None:
            self.timed_out = True
            self._cancel()

    def _cancel(self) -> None:
        # A coroutine that is cancelled before its first step never takes one: it would put down no outcome.
        # One that has not started looks at `stop` by itself.
        # One for all of a batch goes on until all of them are stopped.
        if self.running is not None and self.started_us and all(other.stopped for other in self.together):
            self.running.cancel()

    @property
    def stopped(self) -> bool:
        return self.stop is not None or self.timed_out


def slots_of(gates: Sequence[Gate]) -> tuple[str, ...]:
    """The keys of the concurrency limits among gates."""
    if not gates:
        return ()
    return tuple(gate.key for gate in gates if isinstance(gate, Slots))


@types.coroutine
def metered(
    attempt: Attempt, coroutine: Coroutine[Any, Any, Any], context: Context | None = None
) -> Generator[Any, Any, Any]:
    """Drive a coroutine in a context, or in a copy of this one, and charge to the attempt the CPU time of its own
    steps alone.
    """
    run, call = (context or copy_context()).run, coroutine.send
    value: Any = None
    while True:
        began_ns = thread_cpu_ns()
        try:
            yielded = run(call, value)
        except StopIteration as done:
            return done.value
        finally:
            attempt.cpu_ns += thread_cpu_ns() - began_ns
        if attempt.waits is not None:
            attempt.waits()
            attempt.waits = None
        try:
            call, value = coroutine.send, (yield yielded)
        except BaseException as thrown:
            call, value = coroutine.throw, thrown


def measured(attempt: Attempt, call: Callable[[], Any]) -> Any:
    """Call in this thread and charge the CPU time to the attempt."""
    began_ns = thread_cpu_ns()
    try:
        return call()
    except (StopIteration, GeneratorExit) as error:
        # Neither can travel: a future refuses the one, and the other means to coroutines that they are closed.
        raise RuntimeError(f"The function raised {type(error).__name__}.") from error
    finally:
        attempt.cpu_ns += thread_cpu_ns() - began_ns
