"""The process pool: calls wait in one line for a child, and what befalls a child befalls its call alone.

Children are started when there is a call for them, up to their number, and kept warm. One that dies, or is
killed for its timeout, its memory or a caller who gave up, ends its own call and is replaced when the next
call needs it. There is one way on for everything that happens: `_changed`, then `_serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import Final

from lineshaft.core.bounds import PAYLOAD_BYTES_MAX
from lineshaft.core.errors import InvalidSetting, Overloaded, PayloadTooLarge, ShuttingDown
from lineshaft.data.compute.process import Call, ChildProcess, PoolFailure, PoolReply, State

__all__ = ["PoolFailure", "PoolReply", "ProcessPool"]

RUNS_PER_CHILD_MAX: Final = 1_000
"""Calls after which a child is replaced, so that what leaks in it does not pile up."""
FRAME_BYTES_MAX: Final = 4 * PAYLOAD_BYTES_MAX
"""Payload or result that crosses to or from a child: what may be stored, and room for an envelope."""
WAITING_MAX: Final = 10_000
"""Calls that may wait for a child; beyond it `Overloaded`."""
MEMORY_CHECK_S: Final = 0.1
"""How often the memory of a busy child is looked at."""
LIFE_CHECK_S: Final = 1.0
"""How often a busy child is looked at where its memory has no bound."""


class ProcessPool:
    """Executes declared tasks in child processes of this machine (POSIX).

    Belongs to the event loop in which `start` was awaited, and to its thread: on Linux children die with it.
    """

    def __init__(
        self,
        *,
        children: int,
        runs_per_child_max: int = RUNS_PER_CHILD_MAX,
        memory_bytes_max: int | None = None,
        waiting_max: int = WAITING_MAX,
        frame_bytes_max: int = FRAME_BYTES_MAX,
    ) -> None:
        """`memory_bytes_max` bounds the resident memory of each child: during a call it is killed for it,
        after a call it is replaced.
        """
        for name, value in (("children", children), ("runs_per_child_max", runs_per_child_max)):
            if value < 1:
                raise InvalidSetting(f"{name} is {value}; a process pool needs at least 1.")
        self._children_max = children
        self._runs_per_child_max = runs_per_child_max
        self._memory_bytes_max = memory_bytes_max
        self._waiting_max = waiting_max
        self._frame_bytes_max = frame_bytes_max
        self._children: list[ChildProcess] = []
        self._waiting: OrderedDict[Call, None] = OrderedDict()  # a queue that a caller can leave anywhere
        self._watcher: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._open = False

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that there are now."""
        return [child.pid for child in self._children]

    async def start(self) -> None:
        """Accept calls. Children are started when calls need them."""
        self._loop = asyncio.get_running_loop()
        self._open = True

    async def call(self, target: str, payload: bytes, *, timeout_s: float | None = None) -> PoolReply:
        """Execute the task at `target` ("module:qualname") in a child and wait for how it ended.

        The child imports the module and calls `execute_payload(payload)` on what it finds there. The timeout
        counts from there: not while the call waits for a child, nor while the child imports (which has
        a bound of its own). If the awaiting task is cancelled, the child is killed.

        Raises `PayloadTooLarge`, `Overloaded` when too many calls wait, `ShuttingDown` when the pool is
        closed before the call ends. All else comes back in the reply.
        """
        if not self._open:
            raise _closed()
        if len(payload) > self._frame_bytes_max:
            raise PayloadTooLarge(
                f"The payload of {target} has {len(payload)} bytes; "
                f"{self._frame_bytes_max} may cross to a pool child."
            )
        if len(self._waiting) >= self._waiting_max:
            raise Overloaded(
                f"{len(self._waiting)} calls wait for {self._children_max} pool children.",
                hint="Try again later, or allow more children.",
            )
        call = Call(target, payload, timeout_s, self._loop.create_future())
        self._waiting[call] = None
        self._serve()
        try:
            return await call.reply
        finally:
            if call.reply.cancelled():
                self._abandon(call)

    async def close(self, grace_s: float = 5.0) -> None:
        """Refuse new and waiting calls, give those that run `grace_s` seconds, then kill what is left.

        On return there is no child and no open file. A call that was killed raises `ShuttingDown`.
        """
        self._open = False
        for call in self._waiting:
            _refuse(call)
        self._waiting.clear()
        for child in list(self._children):
            if child.state is State.IDLE:
                child.retire()
            elif child.state is State.STARTING:
                child.kill()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._wait_until_empty()
        finally:
            for child in list(self._children):
                if child.call is not None:
                    _refuse(child.call)
                child.kill()
        await self._wait_until_empty()
        if self._watcher is not None:
            self._watcher.cancel()

    async def _wait_until_empty(self) -> None:
        if self._children:
            self._empty.clear()
            await self._empty.wait()

    def _serve(self) -> None:
        """Give waiting calls to idle children, in order, and start children for the calls that remain."""
        for child in self._children:
            if self._waiting and child.state is State.IDLE:
                child.take(self._waiting.popitem(last=False)[0])
        starting = sum(child.state is State.STARTING for child in self._children)
        while starting < len(self._waiting) and len(self._children) < self._children_max:
            try:
                child = ChildProcess(on_change=self._changed, frame_bytes_max=self._frame_bytes_max)
            except OSError as error:
                if self._children:
                    break  # those will serve the calls
                self._fail_first(PoolFailure("start", f"The system refused to start a pool child: {error}."))
            else:
                self._children.append(child)
                starting += 1
        if self._watcher is None and self._children:
            self._watch_later()

    def _changed(self, child: ChildProcess) -> None:
        """A child became idle, or is gone."""
        if child.state is State.GONE:
            self._children.remove(child)
            # Somebody must bear a failed start, or a broken environment would start children for ever.
            if not child.ready and child.failure is not None:
                self._fail_first(child.failure)
            if not self._children:
                self._empty.set()
        elif not self._open or self._is_worn(child):
            child.retire()
        self._serve()

    def _is_worn(self, child: ChildProcess) -> bool:
        too_large = self._memory_bytes_max is not None and child.rss_bytes > self._memory_bytes_max
        return child.calls > 0 and (too_large or child.calls >= self._runs_per_child_max)

    def _fail_first(self, failure: PoolFailure) -> None:
        if self._waiting:
            self._waiting.popitem(last=False)[0].settle(PoolReply(None, failure))

    def _abandon(self, call: Call) -> None:
        self._waiting.pop(call, None)
        # In the same turn of the loop its reply may have come, and its child have taken another call.
        if call.child is not None and call.child.call is call:
            call.child.kill()

    def _watch_later(self) -> None:
        seconds = LIFE_CHECK_S if self._memory_bytes_max is None else MEMORY_CHECK_S
        self._watcher = self._loop.call_later(seconds, self._watch)

    def _watch(self) -> None:
        """Look at the busy children, for as long as there are any."""
        self._watcher = None
        busy = [child for child in self._children if child.state is State.BUSY]
        for child in busy:
            child.check(self._memory_bytes_max)
        if busy and self._watcher is None:
            self._watch_later()


def _closed() -> ShuttingDown:
    return ShuttingDown("The process pool is closed.", hint="The run goes back to the queue.")


def _refuse(call: Call) -> None:
    if not call.reply.done():
        call.reply.set_exception(_closed())
