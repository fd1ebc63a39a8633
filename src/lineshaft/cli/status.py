"""The live status line of `lineshaft run`: done, failed, in flight, rate, and how old the oldest ready run is.

On a terminal one line is redrawn; elsewhere a plain line appears every few seconds while something happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from lineshaft.core.clock import Clock
from lineshaft.core.duration import brief
from lineshaft.core.errors import LineshaftError
from lineshaft.core.spawn import Background
from lineshaft.engine.worker import Worker
from lineshaft.store.values import QueueView

REDRAW_S = 0.25
PLAIN_LINE_S = 5.0
RATE_OVER_S = 3.0
"""Seconds over which the rate is taken."""
LOOK_S_MIN = 1.0
"""Seconds between two looks at the queues; longer where a look takes long, so that watching costs little."""


class Queues(Protocol):
    """What is asked of the store."""

    async def queues(self) -> Sequence[QueueView]: ...


class StatusLine:
    """Shown while the block lasts."""

    def __init__(self, console: Console, worker: Worker, store: Queues, clock: Clock) -> None:
        self._console = console
        self._worker = worker
        self._store = store
        self._clock = clock
        self._background = Background()
        self._seen: deque[tuple[float, int]] = deque([(clock.monotonic_s(), worker.done)])
        self._oldest_s: float | None = None
        self._spinner = Spinner("dots", style="green")
        self._live: Live | None = None

    async def __aenter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self._spinner, console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        self._background.spawn(self._watch_queues(), "lineshaft-status-queues")
        self._background.spawn(self._redraw(), "lineshaft-status")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._background.cancel()
        if self._live is not None:
            self._live.stop()

    async def _watch_queues(self) -> None:
        while True:
            began_s = self._clock.monotonic_s()
            with suppress(LineshaftError):
                ready = [
                    view.oldest_ready_us
                    for view in await self._store.queues()
                    if view.oldest_ready_us is not None
                ]
                now_us = self._clock.now_us()
                self._oldest_s = max(0.0, (now_us - min(ready)) / 1e6) if ready else None
            took_s = self._clock.monotonic_s() - began_s
            await self._clock.sleep(max(LOOK_S_MIN, took_s * 50))

    async def _redraw(self) -> None:
        last = (-1, -1)
        while True:
            now_s = self._clock.monotonic_s()
            worker = self._worker
            self._seen.append((now_s, worker.done))
            while len(self._seen) > 2 and now_s - self._seen[0][0] > RATE_OVER_S:
                self._seen.popleft()
            if self._live is not None:
                self._spinner.update(text=self._line())
                await self._clock.sleep(REDRAW_S)
                continue
            if (worker.done, worker.in_flight) != last:
                last = (worker.done, worker.in_flight)
                self._console.print(self._line(), soft_wrap=True)
            await self._clock.sleep(PLAIN_LINE_S)

    def _line(self) -> Text:
        worker = self._worker
        then_s, then_done = self._seen[0]
        now_s, done = self._seen[-1]
        rate = (done - then_done) / max(now_s - then_s, 0.001) if len(self._seen) > 1 else 0.0
        oldest = "nothing ready" if self._oldest_s is None else f"oldest ready {brief(self._oldest_s)}"
        line = Text(f"{worker.done:,} done", style="bold")
        line.append("   ")
        line.append(f"{worker.failed:,} failed", style="bold red" if worker.failed else "dim")
        line.append(f"   {worker.in_flight:,} in flight   {rate:,.0f}/s   ", style="")
        line.append(oldest, style="dim")
        line.stylize("not bold", len(f"{worker.done:,} done"))
        return line
