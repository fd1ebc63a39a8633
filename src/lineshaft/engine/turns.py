"""Async attempts take turns in one asyncio task, until one of them waits: that one keeps the task from then on, and
the others go on in a new one. So a task is only made for what needs one.

Each attempt has a context of its own all the same (`metered` sees to that), and to a function that waits, a task
of its own; only functions that never wait can see that one task serves several of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from lineshaft.core.clock import Clock
from lineshaft.core.spawn import start
from lineshaft.engine.attempt import Attempt

TURN_S_MAX = 0.02
"""Seconds after which the event loop may do other things, though nothing has waited."""


class Turns:
    """Executes attempts one after another; `execute` puts down how each ended, and never raises."""

    def __init__(self, clock: Clock, execute: Callable[[Attempt], Coroutine[Any, Any, None]]) -> None:
        self._clock = clock
        self._execute = execute

    def start(self, attempts: deque[Attempt]) -> None:
        """Begin with the first of them, in a new task."""
        if attempts:
            start(self._serve(attempts))

    async def _serve(self, attempts: deque[Attempt]) -> None:
        task = asyncio.current_task()
        assert task is not None
        until_s = self._clock.monotonic_s() + TURN_S_MAX
        waited = False

        def hand_on() -> None:
            nonlocal waited
            waited = True
            # In two parts, so that of many that wait the last begins after a few turns of the loop.
            first = deque(attempts.popleft() for _ in range(len(attempts) // 2))
            self.start(first)
            self.start(attempts)

        try:
            while attempts and not waited and not task.cancelling() and self._clock.monotonic_s() < until_s:
                attempt = attempts.popleft()
                attempt.running, attempt.waits = task, hand_on
                await self._execute(attempt)
                # Whoever stops it now, though it has ended, must not stop the next one.
                attempt.running = attempt.waits = None
        finally:
            if not waited:
                self.start(attempts)
