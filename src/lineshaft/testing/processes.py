"""Simulated processes: what starts, stalls and dies together on one event loop.

Whatever a process schedules carries it in its context variables, and so does what that schedules in turn. A
process that is killed takes no further step: no `finally` runs, no reply arrives, as with `kill -9`. One that is
stalled takes its steps later, when timers have run out meanwhile, as after SIGSTOP and SIGCONT.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from lineshaft.core.clock import SystemClock
from lineshaft.testing.clock import BOOTED_US, START_US

if TYPE_CHECKING:
    from lineshaft.testing.loop import SimulationLoop

T = TypeVar("T")

_present: contextvars.ContextVar[Process | None] = contextvars.ContextVar("simulated_process", default=None)


class Process:
    """One process, from its start to its death. A restarted program is another one."""

    def __init__(self, name: str, loop: SimulationLoop) -> None:
        self.name = name
        self.alive = True
        self.dies_in: int | None = None
        """Steps until it is killed; None for never. So it can die at every await, a commit done and not told."""
        self.died: str | None = None
        """Before which step it was killed, if `dies_in` did that."""
        self._loop = loop
        self._stalled_until_s = 0.0
        self._put_off: list[asyncio.Handle] = []
        self._last_words: list[Callable[[], None]] = []
        self._remains: list[Any] = []

    def __repr__(self) -> str:
        return f"<Process {self.name}{'' if self.alive else ', dead'}>"

    # Life

    def context(self) -> contextvars.Context:
        """A new context in which everything belongs to this process."""
        context = contextvars.Context()
        context.run(_present.set, self)
        return context

    def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work in it."""
        return self._loop.create_task(work, context=self.context())

    def at_death(self, call: Callable[[], None]) -> None:
        """What the kernel does when the process ends: closes its files, lets go of its locks."""
        self._last_words.append(call)

    def kill(self) -> None:
        """As `kill -9` does."""
        if not self.alive:
            return
        self.alive = False
        # Somebody has to keep what it was doing: collected, coroutines and threads would run their `finally`.
        self._remains += [task for task in asyncio.all_tasks(self._loop) if _belongs(task, self)]
        self._remains += self._put_off
        self._remains += self._loop.threading.threads_of(self)
        for call in self._last_words:
            call()

    def stall(self, seconds: float) -> None:
        """As SIGSTOP does, with SIGCONT after so long."""
        self._stalled_until_s = max(self._stalled_until_s, self._loop.time() + seconds)
        nobody = contextvars.Context()
        self._loop.call_at(self._stalled_until_s, self._continue, context=nobody)

    @property
    def is_stalled(self) -> bool:
        return self._loop.time() < self._stalled_until_s

    def bury(self) -> None:
        """Let go of what it was doing, once the simulation is over."""
        for each in self._remains:
            if isinstance(each, asyncio.Task):
                # As asyncio's own `gather` does it: that they never ended is meant.
                each._log_destroy_pending = False  # type: ignore[attr-defined]
        self._remains.clear()

    # Asked by the loop

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether a step of this process is taken now."""
        if self.alive and self.is_stalled:
            self._put_off.append(handle)
            return False
        if self.alive and self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in <= 0:
                self.died = repr(handle)
                self.kill()
        if not self.alive:
            self._remains.append(handle)
        return self.alive

    def _continue(self) -> None:
        if self.alive and not self.is_stalled:
            handles, self._put_off = self._put_off, []
            self._loop.again(handles)


def process_of(context: contextvars.Context) -> Process | None:
    """The process that a context belongs to."""
    return context.get(_present)


def present_process() -> Process | None:
    """The process whose code asks."""
    return _present.get()


def _belongs(task: Any, process: Process) -> bool:
    return getattr(task, "process", None) is process


class SimulatedClock(SystemClock):
    """The clocks of one simulated process; they follow the loop's time.

    Wall time may be wrong by an offset and by a drift. Boot time is the machine's: nobody sets it.
    """

    def __init__(self, loop: SimulationLoop, *, offset_s: float = 0.0, drift: float = 0.0) -> None:
        self._loop = loop
        self._offset_us = round(offset_s * 1_000_000)
        self._rate = 1.0 + drift

    def now_us(self) -> int:
        return START_US + self._offset_us + round(self._loop.time() * self._rate * 1_000_000)

    def monotonic_s(self) -> float:
        return self._loop.time()

    def boot_us(self) -> int:
        return BOOTED_US + round(self._loop.time() * 1_000_000)

    def boot_id(self) -> str:
        return "simulated-boot"

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock forward, or back."""
        self._offset_us += round(seconds * 1_000_000)
