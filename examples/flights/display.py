"""Live progress: a bar, the rate, what is done and failed, and how long the oldest in the queue has waited.

On a terminal one line is redrawn; elsewhere (a log, a build) a plain line appears every few seconds.
"""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_LINE_S: Final = 5.0
"""Seconds between two plain lines."""
RATE_OVER_S: Final = 3.0
"""Seconds over which the rate is taken."""


class Display:
    """Shows one phase of the work after the other; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,}/{task.total:,}"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._phase = ""
        self._total = 0
        self._begun_with = 0
        self._done = 0
        self._failed = 0
        self._began_s = 0.0
        self._line_due_s = 0.0
        self._seen: deque[tuple[float, int]] = deque()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, phase: str, total: int, *, done: int) -> None:
        """Begin a phase, of which `done` was done before."""
        self._phase, self._total, self._failed = phase, total, 0
        self._done = self._begun_with = done
        self._began_s = time.monotonic()
        self._line_due_s = self._began_s + PLAIN_LINE_S
        self._seen = deque([(self._began_s, done)])
        self._bar = self._progress.add_task(phase, total=total, completed=done, figures="")
        if 0 < done < total:
            self._console.print(f"{phase}: {done:,} of {total:,} are done already; continuing.")

    def show(self, done: int, failed: int, oldest_age_s: float | None) -> None:
        """Show the present figures. What is done never goes back."""
        self._done, self._failed = max(self._done, min(done, self._total)), failed
        figures = f"{self._rate():,.0f}/s  failed {failed:,}  queue age {oldest_age_s or 0.0:.1f} s"
        self._draw(figures)

    def advance(self, *, failed: bool = False) -> None:
        """One more is done, or has failed."""
        self._failed += failed
        self._done = min(self._done + (not failed), self._total)
        self._draw(f"{self._rate():,.0f}/s  failed {self._failed:,}")

    def finish(self) -> None:
        """End the phase with one line that stays."""
        seconds = time.monotonic() - self._began_s
        done = self._done - self._begun_with
        self._draw("")
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None
        rate = f" in {seconds:.1f} s, {done / seconds:,.0f} a second" if done else ", nothing left to do"
        failed = f", {self._failed:,} failed" if self._failed else ""
        self._console.print(f"{self._phase}: {self._done:,} of {self._total:,}{rate}{failed}.")

    def _draw(self, figures: str) -> None:
        if self._bar is not None:
            self._progress.update(self._bar, completed=self._done, figures=figures)
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s >= self._line_due_s:
            self._line_due_s = now_s + PLAIN_LINE_S
            self._console.print(f"{self._phase}: {self._done:,} of {self._total:,}  {figures}")

    def _rate(self) -> float:
        now_s = time.monotonic()
        self._seen.append((now_s, self._done))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        then_s, then_done = self._seen[0]
        return (self._done - then_done) / max(now_s - then_s, 0.001)
