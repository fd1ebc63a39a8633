"""The handle of a run: ask for its result or status, cancel it, follow its progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

from lineshaft.core.codec import ValueCodec
from lineshaft.core.duration import Duration, seconds
from lineshaft.core.errors import ResultTimeout, RunNotFound
from lineshaft.core.states import FINAL, State
from lineshaft.engine.context import Progress
from lineshaft.engine.outcomes import failure_of
from lineshaft.engine.portal import portal
from lineshaft.engine.runtime import Runtime
from lineshaft.store.values import RunView

R = TypeVar("R")
PROGRESS_LOOK_S = 0.25


class Run(Generic[R]):
    """One durable invocation. Holding or dropping the handle does nothing to the run."""

    __slots__ = ("id", "task", "created", "_runtime", "_codec", "__weakref__")

    def __init__(
        self, runtime: Runtime, run_id: str, task: str, codec: ValueCodec, *, created: bool = True
    ) -> None:
        self.id = run_id
        self.task = task
        self.created = created
        """False if the run was there before: its id was given, or it holds the key of this submission."""
        self._runtime = runtime
        self._codec = codec

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.task}>"

    async def result(self, timeout: Duration | None = None) -> R:  # noqa: ASYNC109 - the waiting has an end, the run goes on
        """Wait for the result.

        Raises `RunFailed`, `RunTimedOut`, `RunCrashed`, `RunCancelled` or `RunOutcomeUnknown` as the run
        ended, `ResultTimeout` if it has not ended in time (the run goes on then), and `RunNotFound` for
        a run that never was, or of which the history is gone.
        """
        timeout_s = None if timeout is None else seconds(timeout, "timeout")
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                if not self.created:
                    await self.view()
                ending = await self._runtime.waiters().wait(self.id)
        except TimeoutError as error:
            if not limit.expired():
                raise
            # Without this look no time at all could never be enough for a run that has ended.
            last_look = await self._runtime.waiters().find(self.id)
            if last_look is None:
                raise ResultTimeout(
                    f"Run {self.id} of task {self.task!r} has not ended within {timeout_s:g} seconds; it goes on.",
                    hint=f"`lineshaft why {self.id}` tells what it waits for.",
                ) from error
            ending = last_look
        if ending.state is not State.SUCCEEDED:
            raise failure_of(self.id, self.task, ending.state, ending.failure)
        result: R = self._codec.decode(ending.result or b"null")
        return result

    async def view(self) -> RunView:
        """Everything that the store knows of it."""
        found = (await self._runtime.store.view([self.id]))[0]
        if found is None:
            raise RunNotFound(f"There is no run {self.id}.", hint="Its history may have been pruned.")
        return found

    async def status(self) -> State:
        """The state it is in."""
        return (await self.view()).state

    async def cancel(self) -> State:
        """Cancel it, or ask its worker to; the state it is in then. A run that has ended is left as it is."""
        runtime = self._runtime
        state = await runtime.store.cancel(self.id, runtime.clock.now_us())
        runtime.cancel_wanted()
        if state is State.CANCELLED:
            runtime.recheck()
        return state

    async def progress(self) -> AsyncIterator[Progress]:
        """What the run tells of its progress, as it changes, until it ends."""
        last: bytes | None = None
        while True:
            state = await self.status()
            data = await self._runtime.store.progress(self.id)
            if data is not None and data != last:
                last = data
                yield Progress(*json.loads(data))
            if state in FINAL:
                return
            await self._runtime.clock.sleep(PROGRESS_LOOK_S)

    @property
    def blocking(self) -> BlockingRun[R]:
        """The same for synchronous callers."""
        return BlockingRun(self)


class BlockingRun(Generic[R]):
    """A run's handle for code without an event loop."""

    def __init__(self, run: Run[R]) -> None:
        self._run = run
        self.id = run.id

    def result(self, timeout: Duration | None = None) -> R:
        """See `Run.result`."""
        return portal().call(self._run.result(timeout))

    def view(self) -> RunView:
        return portal().call(self._run.view())

    def status(self) -> State:
        return portal().call(self._run.status())

    def cancel(self) -> State:
        return portal().call(self._run.cancel())

    def progress(self) -> Iterator[Progress]:
        following: Any = self._run.progress()
        while True:
            try:
                yield portal().call(anext(following))
            except StopAsyncIteration:
                return
