"""Waiting for runs to end, whoever executes them.

A worker in this process tells its waiters directly when a settlement is durable. For all others one query
asks for every run that is waited for, when news comes that something finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lineshaft.core.errors import StoreUnavailable
from lineshaft.core.spawn import Background
from lineshaft.core.states import State
from lineshaft.store.port import Reads, Wakes
from lineshaft.store.values import Failure, News, Outcome, RunView


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    state: State
    result: bytes | None
    failure: Failure | None


class Waiters:
    """Those who wait on one event loop."""

    def __init__(self, reads: Reads, wakes: Wakes) -> None:
        self._reads = reads
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[asyncio.Future[Ending]]] = {}
        self._background = Background()
        self._asking = False
        self._ask_again = False
        self._unsubscribe: Callable[[], None] | None = None
        self._wakes = wakes

    async def wait(self, run_id: str) -> Ending:
        """Return when the run has ended; at once if it has already."""
        if self._unsubscribe is None:
            self._unsubscribe = self._wakes.on_news(self._on_news)
        future = self._loop.create_future()
        self._waiting.setdefault(run_id, []).append(future)
        # It may have ended before we began to listen.
        self._ask_soon()
        try:
            ending: Ending = await future
            return ending
        finally:
            futures = self._waiting.get(run_id)
            if futures is not None and future in futures:
                futures.remove(future)
                if not futures:
                    del self._waiting[run_id]

    async def find(self, run_id: str) -> Ending | None:
        """How a run has ended, if it has; without waiting."""
        found = await self._reads.finished([run_id])
        return _ending(found[0]) if found else None

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Runs that this process settled, durably. Safe to call from any thread."""
        if not self._waiting:
            return
        # Who begins to wait only now finds the end by asking the store.
        endings = [
            (outcome.run_id, Ending(outcome.state, outcome.result, outcome.failure))
            for outcome in outcomes
            if outcome.run_id in self._waiting
        ]
        if not endings:
            return
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._tell(endings)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, endings)

    def look(self) -> None:
        """Ask the store anew. Safe to call from any thread."""
        if self._waiting and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ask_soon)

    def _tell(self, endings: Sequence[tuple[str, Ending]]) -> None:
        for run_id, ending in endings:
            for future in self._waiting.pop(run_id, ()):
                if not future.done():
                    future.set_result(ending)

    def _on_news(self, news: News) -> None:
        if news & News.FINISHED and self._waiting:
            self._ask_soon()

    def _ask_soon(self) -> None:
        self._ask_again = True
        if not self._asking:
            self._asking = True
            self._background.spawn(self._ask(), "lineshaft-waiters")

    async def _ask(self) -> None:
        try:
            while self._ask_again and self._waiting:
                self._ask_again = False
                found = await self._reads.finished(list(self._waiting))
                self._tell([(view.id, _ending(view)) for view in found])
        except Exception as error:
            self._refuse(error)
        finally:
            self._asking = False

    async def close(self) -> None:
        """End the waiting of all who wait, on the loop they wait on."""
        self.forget()
        await self._background.cancel()
        self._refuse(StoreUnavailable("The store was closed while a run was waited for; the run goes on."))

    def forget(self) -> None:
        """Hear of nothing more: the loop has ended, or is about to."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _refuse(self, error: Exception) -> None:
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)


def _ending(view: RunView) -> Ending:
    return Ending(view.state, view.result, view.failure)
