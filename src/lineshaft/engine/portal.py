"""The one way from synchronous code into the asynchronous core: an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import TypeVar

from lineshaft.core.errors import LineshaftError

T = TypeVar("T")


class Portal:
    """Runs coroutines for callers in other threads. Started at first use; ends with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lineshaft-portal", daemon=True)
        self._thread.start()

    def call(self, work: Awaitable[T]) -> T:
        """Run it to its end and return its result. An interrupt of the caller cancels it."""
        if _runs_here():
            if asyncio.iscoroutine(work):
                work.close()
            raise LineshaftError(
                "blocking was used on a thread that runs an event loop, which it would block.",
                hint="Await the method of the same name without .blocking.",
            )

        async def run() -> T:
            return await work

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_lock = threading.Lock()
_portal: Portal | None = None


def portal() -> Portal:
    """The portal of this process."""
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
        return _portal
