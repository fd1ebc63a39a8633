"""Progress for whoever waits: what is under way, and every value once it is found."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.measurement import Measurement
from benchmarks.report.numbers import NOTHING, number


class Terminal:
    """One line for what is under way, and those above it for what was found."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._line: TaskID | None = None
        self._phase = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, name: str, about: str) -> None:
        self._console.print(f"[bold]{name}[/]  {about}", highlight=False)

    def show(self, phase: str, done: int, total: int) -> None:
        """What is under way, and how far it is."""
        if phase != self._phase:
            if self._line is not None:
                self._progress.remove_task(self._line)
            self._phase, self._line = phase, self._progress.add_task(phase, total=total)
        assert self._line is not None
        self._progress.update(self._line, completed=done, total=total)

    def found(self, measurement: Measurement) -> None:
        value = measurement.values[-1]
        text = NOTHING if value is None else number(value)
        self._console.print(
            f"  round {len(measurement.values)}  {measurement.config}, {measurement.metric}: {text} {measurement.unit}",
            highlight=False,
        )
