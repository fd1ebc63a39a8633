"""Simulated threads: code that blocks, run by a deterministic event loop.

A simulated thread is a greenlet: a stack of its own on the one real thread. It runs until it blocks on something
that comes from here, and is resumed by a step of the loop, like everything else; so its steps are drawn by the
seed, and it stalls and dies with its process. Nothing interrupts it between two such points: what it does there
is one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]  # it has no stubs

from lineshaft.testing.processes import Process, present_process

if TYPE_CHECKING:
    from lineshaft.testing.loop import SimulationLoop


class WouldBlock(RuntimeError):
    """Code on the event loop waited for something that only the event loop can bring about."""


class SimulatedThreading:
    """Makes threads, and what they block on; a `lineshaft.core.host.Threading`."""

    def __init__(self, loop: SimulationLoop) -> None:
        self._loop = loop
        self._threads: dict[SimulatedThread, None] = {}

    def start(self, serve: Callable[[], None], name: str) -> SimulatedThread:
        """Start a thread that belongs to the present process."""
        thread = SimulatedThread(self._loop, serve, name, self._ended)
        self._threads[thread] = None
        return thread

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self.condition())

    def condition(self) -> SimulatedCondition:
        return SimulatedCondition(self._loop)

    def sleep(self, seconds: float) -> None:
        """Block the thread that calls for so long."""
        SimulatedThread.present("sleep").park(self._loop.time() + seconds)

    def threads_of(self, process: Process) -> list[SimulatedThread]:
        """Those that have not ended."""
        return [thread for thread in self._threads if thread.process is process]

    def _ended(self, thread: SimulatedThread) -> None:
        self._threads.pop(thread, None)


class SimulatedThread:
    """One thread."""

    def __init__(
        self,
        loop: SimulationLoop,
        serve: Callable[[], None],
        name: str,
        ended: Callable[[SimulatedThread], None],
    ) -> None:
        self.name = name
        self.process = present_process()
        self._loop = loop
        self._serve = serve
        self._told = ended
        self._end = SimulatedCondition(loop)
        self._has_ended = False
        self._parked = 0
        """Counts the times that it was parked, so that of two that would resume it only the first does."""
        self._greenlet = _Strand(self)
        self.wake()

    def is_alive(self) -> bool:
        return not self._has_ended

    def join(self) -> None:
        """Block until it has ended."""
        self._end.wait_for(lambda: self._has_ended)

    @staticmethod
    def present(what: str) -> SimulatedThread:
        """The thread that asks; raises on the event loop."""
        strand = getcurrent()
        if not isinstance(strand, _Strand):
            raise WouldBlock(f"{what}: this is the event loop, which would wait for itself.")
        return strand.thread

    def park(self, until_s: float | None = None) -> None:
        """Let others run until somebody wakes this thread, or until that time. Called by the thread itself."""
        if self._loop.is_closed():
            raise GreenletExit
        self._parked += 1
        timer = None
        if until_s is not None:
            timer = self._loop.call_at(until_s, self._resume, self._parked, context=self.context())
        self._greenlet.parent.switch()
        if timer is not None:
            timer.cancel()

    def wake(self) -> None:
        """Have it go on from where it is parked."""
        self._loop.call_soon(self._resume, self._parked, context=self.context())

    def context(self) -> Context:
        """A new one of its process."""
        return Context() if self.process is None else self.process.context()

    def _resume(self, parked: int) -> None:
        """A step of the loop: run it until it blocks again, or ends."""
        if parked != self._parked or self._has_ended:
            return
        self._parked += 1
        self._greenlet.parent = getcurrent()
        # A thread has no running event loop, though it is the same thread for Python.
        asyncio._set_running_loop(None)
        try:
            self._greenlet.switch()
        finally:
            asyncio._set_running_loop(self._loop)

    def run(self) -> None:
        """What the greenlet executes."""
        try:
            self._serve()
        finally:
            self._has_ended = True
            self._told(self)
            if not self._loop.is_closed():
                self._end.notify_all()


class _Strand(greenlet):  # type: ignore[misc]  # for want of those stubs
    """The greenlet of a thread."""

    def __init__(self, thread: SimulatedThread) -> None:
        super().__init__(thread.run)
        self.thread = thread
        self.gr_context = thread.context()


class SimulatedCondition:
    """Like `threading.Condition`; its lock is always free, since nobody blocks while he holds it."""

    def __init__(self, loop: SimulationLoop) -> None:
        self._loop = loop
        self._waiting: list[SimulatedThread] = []

    def __enter__(self) -> SimulatedCondition:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def wait_for(self, predicate: Callable[[], object], timeout: float | None = None) -> object:
        """Block until the predicate holds, or so many virtual seconds have passed."""
        until_s = None if timeout is None else self._loop.time() + timeout
        while not (found := predicate()):
            if until_s is not None and self._loop.time() >= until_s:
                break
            thread = SimulatedThread.present("wait_for")
            self._waiting.append(thread)
            thread.park(until_s)
            if thread in self._waiting:
                self._waiting.remove(thread)
        return found

    def notify_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            thread.wake()


class SimulatedEvent:
    """Like `threading.Event`."""

    def __init__(self, condition: SimulatedCondition) -> None:
        self._condition = condition
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._condition.notify_all()

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        self._condition.wait_for(self.is_set, timeout)
        return self._is_set
