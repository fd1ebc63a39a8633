"""Time that passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading

START_US = 1_767_225_600_000_000
"""The first of January 2026, in UTC."""
BOOTED_US = 3_600_000_000
"""The machine has been up for an hour when a clock is made."""


class VirtualClock:
    """A `lineshaft.core.clock.Clock` that stands still between two calls of `advance`.

    Several stores and workers of one test may share it, from any thread; `sleep` and `advance` belong on the
    event loop.
    """

    def __init__(self, now_us: int = START_US) -> None:
        self._lock = threading.Lock()
        self._now_us = now_us
        self._boot_us = BOOTED_US
        self._passed_us = 0
        self._boots = 1
        self._numbers = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_us(self) -> int:
        return self._now_us

    def monotonic_s(self) -> float:
        return self._passed_us / 1_000_000

    def boot_us(self) -> int:
        return self._boot_us

    def boot_id(self) -> str:
        return f"virtual-boot-{self._boots}"

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has passed that many seconds; without any, let others run once."""
        loop = asyncio.get_running_loop()
        wakened: asyncio.Future[None] = loop.create_future()
        if seconds <= 0:
            loop.call_soon(_wake, wakened)
        else:
            due_us = self._passed_us + round(seconds * 1_000_000)
            heapq.heappush(self._sleepers, (due_us, next(self._numbers), wakened))
        await wakened

    def advance(self, seconds: float) -> None:
        """Let time pass. Sleepers wake in the order in which they are due, and see the time after all of it."""
        if seconds < 0:
            raise ValueError("Only wall time can go back: use `set_wall`.")
        passed_us = round(seconds * 1_000_000)
        with self._lock:
            self._now_us += passed_us
            self._boot_us += passed_us
            self._passed_us += passed_us
        while self._sleepers and self._sleepers[0][0] <= self._passed_us:
            _wake(heapq.heappop(self._sleepers)[2])

    def set_wall(self, now_us: int) -> None:
        """Somebody sets the machine's wall time; no other kind of time is touched."""
        with self._lock:
            self._now_us = now_us

    def reboot(self) -> None:
        """The machine starts again: boot time begins anew, under another id."""
        with self._lock:
            self._boots += 1
            self._boot_us = 0

    @property
    def sleepers(self) -> int:
        """How many wait for time to pass."""
        return sum(not wakened.done() for _, _, wakened in self._sleepers)


def _wake(wakened: asyncio.Future[None]) -> None:
    if not wakened.done():
        wakened.set_result(None)
