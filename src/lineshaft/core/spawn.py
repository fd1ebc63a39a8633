"""The only owner of background tasks on an event loop: kept alive while they run, and never silent.

A task that nobody refers to may be collected in the middle, and an exception in one that nobody awaits is
lost; both are prevented here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from lineshaft.core.clock import Clock

_log = logging.getLogger("lineshaft")


def start(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start work that ends by itself, never raises, and is kept alive by who starts it."""
    return asyncio.get_running_loop().create_task(work)


class Background:
    """A set of background tasks that end together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start work on the running event loop; an exception that ends it is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep_up(self, serve: Callable[[], Coroutine[Any, Any, None]], name: str, clock: Clock) -> None:
        """Serve until cancelled: a service that an unexpected error ended is started again after a pause."""

        async def again_and_again() -> None:
            while True:
                try:
                    await serve()
                except Exception:
                    _log.exception("%s met an unexpected error; it goes on in a second.", name)
                await clock.sleep(1.0)

        self.spawn(again_and_again(), name)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("Background task %s ended with an error.", task.get_name(), exc_info=error)

    async def wait(self) -> None:
        """Wait until all have ended by themselves."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Cancel all and wait until they have ended."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
