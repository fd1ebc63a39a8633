"""A deterministic event loop: the order of what is ready is drawn from a seed, and time is virtual.

asyncio calls what is ready in the order in which it became so, which depends on how long everything took. This
loop takes no time at all and draws the order from a seed, so that one seed is one history of a program, the same
each time, and many seeds reach histories that the machine at hand never shows.

Nothing may come in from outside: sockets, subprocesses and signals are refused. A function handed to an executor
is called in a simulated thread (`threads`). Every step belongs to the simulated process (`processes`) whose code
scheduled it, and goes with that.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from lineshaft.core.ident import SystemChance
from lineshaft.testing.processes import Process, process_of
from lineshaft.testing.threads import SimulatedThreading

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEP_S: Final = 0.000_02
"""Virtual seconds that one step takes, so that a busy program does not stop the time."""
STEPS_MAX: Final = 5_000_000


class SimulationError(RuntimeError):
    """A program did what cannot be simulated."""


class Stuck(SimulationError):
    """Nothing is ready, no timer runs, and what the loop was to complete still waits."""


class Endless(SimulationError):
    """The bound on steps is reached."""


class SimulationLoop(asyncio.BaseEventLoop):
    """Runs asyncio programs as a seed says.

    `disorder` is the share of steps that are drawn at random from all that is ready; the others are taken in
    the order in which they became so. `trace`, if given, is called with a line for each step.
    """

    # What asyncio's base class keeps, and its stubs do not tell of.
    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool
    _thread_id: int | None

    def __init__(
        self,
        seed: int,
        *,
        disorder: float = 1.0,
        step_s: float = STEP_S,
        steps_max: int = STEPS_MAX,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.trace = trace
        self.steps = 0
        """Taken so far."""
        self.threading = SimulatedThreading(self)
        """Threads that this loop runs, for a `lineshaft.core.host.Host`."""
        self._fraction = SystemChance(seed).fraction
        self._disorder = disorder
        self._step_s = step_s
        self._steps_max = steps_max
        self._now_s = 0.0
        self._numbers = 0
        self._threads_started = 0
        self.set_task_factory(_numbered_task)

    # Time and order

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def _run_once(self) -> None:
        """Take one step."""
        self._wake_timers()
        if not self._ready:
            if self._stopping:
                return
            self._pass_time()
        handle = self._draw()
        process = process_of(handle._context)
        if handle._cancelled or (process is not None and not process.admits(handle)):
            return
        self.steps += 1
        if self.steps > self._steps_max:
            raise Endless(f"This has taken {self._steps_max} steps and does not end.")
        self._now_s += self._step_s
        if self.trace is not None:
            self.trace(f"{self._now_s:.6f} {process.name if process else '-'} {_described(handle._callback)}")
        handle._run()

    def _draw(self) -> Any:
        ready = self._ready
        if len(ready) > 1 and self._fraction() < self._disorder:
            ready.rotate(-int(self._fraction() * len(ready)))
        return ready.popleft()

    def _wake_timers(self) -> None:
        timers = self._scheduled
        while timers and (timers[0]._cancelled or timers[0]._when <= self._now_s):
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer._cancelled:
                self._ready.append(timer)

    def _pass_time(self) -> None:
        if not self._scheduled:
            raise Stuck("Nothing is ready and no timer runs: what is waited for cannot come any more.")
        self._now_s = max(self._now_s, self._scheduled[0]._when)
        self._wake_timers()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time has come."""

    def again(self, handles: list[asyncio.Handle]) -> None:
        """Have steps taken that were put off."""
        self._ready.extend(handles)

    # What the loop makes

    def number(self) -> int:
        """The next of this loop's numbers, by which sets have the same order each time."""
        self._numbers += 1
        return self._numbers

    def create_future(self) -> asyncio.Future[Any]:
        return _NumberedFuture(loop=self)

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 - a pool of real threads; no seed decides over those
        func: Callable[..., T],
        *args: Any,
    ) -> asyncio.Future[T]:
        """Call it in a simulated thread; whatever executor is given is not used."""
        future: asyncio.Future[T] = self.create_future()

        def serve() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except BaseException as error:
                self.call_soon_threadsafe(_fail, future, error)
            else:
                self.call_soon_threadsafe(_fulfil, future, result)

        self._threads_started += 1
        self.threading.start(serve, f"executor-{self._threads_started}")
        return future

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """For simulated threads. One of the operating system comes when it likes, and is refused."""
        if self._thread_id is not None and threading.get_ident() != self._thread_id:
            raise SimulationError(
                "A thread of the operating system called into a simulation, where nothing may come from outside."
            )
        return self.call_soon(callback, *args, context=context)

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


_OUTSIDE: Final = (
    *("add_reader", "remove_reader", "add_writer", "remove_writer"),
    *("add_signal_handler", "remove_signal_handler"),
    *("sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"),
    *("sock_sendall", "sock_sendfile", "sock_sendto"),
    *("create_connection", "create_server", "create_datagram_endpoint", "connect_accepted_socket"),
    *("create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo", "start_tls", "sendfile"),
    *("subprocess_exec", "subprocess_shell", "connect_read_pipe", "connect_write_pipe"),
)


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise SimulationError(f"loop.{name} reaches outside the program, which no seed decides over.")

    return refuse


for _name in _OUTSIDE:
    setattr(SimulationLoop, _name, _refusal(_name))


class _NumberedFuture(asyncio.Future[Any]):
    """One of which the place in a set does not depend on where in memory it lies."""

    def __init__(self, *, loop: SimulationLoop) -> None:
        super().__init__(loop=loop)
        self.number = loop.number()

    def __hash__(self) -> int:
        return self.number


class NumberedTask(asyncio.Task[Any]):
    """The same of a task; it knows the process that it belongs to."""

    def __init__(self, work: Coroutine[Any, Any, Any], *, loop: SimulationLoop, **options: Any) -> None:
        self.number = loop.number()
        self.process: Process | None = process_of(options.get("context") or contextvars.copy_context())
        super().__init__(work, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


def _numbered_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T] | Generator[Any, None, T], **options: Any
) -> asyncio.Task[T]:
    assert isinstance(loop, SimulationLoop)
    return NumberedTask(work, loop=loop, **options)  # type: ignore[arg-type]  # generators are of old asyncio


def _described(callback: Any) -> str:
    """A step in words that are the same each time: neither an address in memory nor asyncio's own numbers."""
    task = getattr(callback, "__self__", None)
    if isinstance(task, NumberedTask):
        return f"{task.number} {getattr(task.get_coro(), '__qualname__', '')}"
    while hasattr(callback, "func"):
        callback = callback.func
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))


def _fulfil(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
