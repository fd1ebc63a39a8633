"""`lineshaft run` and `lineshaft worker`: execute the runs of an App until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from lineshaft.cli import printing
from lineshaft.cli.loading import load
from lineshaft.cli.options import ModuleApp

if TYPE_CHECKING:
    from rich.console import Console

    from lineshaft.app import App
    from lineshaft.engine.worker import Worker

Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", metavar="NAME", help="Serve only this queue; may be given again. Default: all."),
]
OnLoop = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Asynchronous attempts at once. Default: 2000.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Attempts in threads at once. Default: 32.")]
Processes = Annotated[int | None, typer.Option(min=1, help="Processes of the pool. Default: 2.")]
Grace = Annotated[
    str,
    typer.Option(metavar="DURATION", help="How long attempts may go on after a signal to stop."),
]
SERVED_NAMES_MAX = 12


def run(
    target: ModuleApp,
    queue: Queues = None,
    concurrency: OnLoop = None,
    threads: Threads = None,
    processes: Processes = None,
    grace: Grace = "10s",
) -> None:
    """Run an App in this one process, with live status.

    The first Ctrl-C or SIGTERM drains and ends it, the second ends it at once; nothing is lost either way.
    """
    _serve(target, queue, concurrency, threads, processes, grace, live=True)


def worker(
    target: ModuleApp,
    queue: Queues = None,
    concurrency: OnLoop = None,
    threads: Threads = None,
    processes: Processes = None,
    grace: Grace = "10s",
) -> None:
    """Execute the runs of an App, with log lines.

    The first SIGTERM or SIGINT drains and ends it, the second ends it at once; nothing is lost either way.
    """
    _serve(target, queue, concurrency, threads, processes, grace, live=False)


def _serve(
    target: str,
    queue: list[str] | None,
    on_loop: int | None,
    threads: int | None,
    processes: int | None,
    grace: str,
    *,
    live: bool,
) -> None:
    from lineshaft.core.duration import seconds
    from lineshaft.engine.places import Concurrency

    console = printing.stdout() if live else printing.stderr()
    _log_to(console, with_time=not live)
    app = load(target)
    given = {"on_loop": on_loop, "threads": threads, "processes": processes}
    concurrency = Concurrency(**{name: count for name, count in given.items() if count is not None})
    serving = _Serving(app, console, live=live, queues=queue or [], concurrency=concurrency)
    run_loop(serving.serve(seconds(grace, "--grace")))
    console.file.flush()
    left = [thread for thread in threading.enumerate() if thread.name.startswith("lineshaft-run")]
    if left:
        # Their runs went back to the queue; Python would wait for the threads, maybe for ever.
        console.print(f"{len(left)} threads are left in functions that do not return.", style="yellow")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


GARBAGE_OBJECTS = 10_000
"""New objects after which the garbage collector looks at them; Python's own 700 are over within 50 runs."""
SWITCH_S = 0.000_2
"""Seconds for which a thread keeps the interpreter lock while others want it; Python's own 5 ms are 100 runs."""


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a process that does nothing else, on the fastest event loop there is here.

    The garbage collector leaves alone what has been loaded by now, and looks less often: left as it is, it takes
    a fifth of the time of short runs. The writing thread gets the interpreter lock back sooner from a busy event loop,
    after each statement of a transaction for whose end other processes wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 10, 10)
    sys.setswitchinterval(SWITCH_S)
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


class _Serving:
    """One worker of an App from its start to its last word."""

    def __init__(
        self, app: App, console: Console, *, live: bool, queues: list[str], concurrency: Any
    ) -> None:
        self._app = app
        self._console = console
        self._live = live
        self._queues = queues
        self._concurrency = concurrency
        self._stop = asyncio.Event()
        self._signals = 0
        self._worker: Worker | None = None
        self._address = app.store_address

    async def serve(self, grace_s: float) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        async with self._app as app:
            self._address = str(getattr(app.runtime.store, "address", self._address))
            serving = app.worker(queues=self._queues, concurrency=self._concurrency, grace=grace_s)
            # The status line outlives the worker's block: it shows how the draining goes.
            async with AsyncExitStack() as status, serving as worker:
                self._worker = worker
                self._greet(worker)
                if self._live:
                    from lineshaft.cli.status import StatusLine

                    line = StatusLine(self._console, worker, app.runtime.store, app.runtime.clock)
                    await status.enter_async_context(line)
                await self._stop.wait()
        self._say(
            f"Stopped. {worker.done:,} {'run' if worker.done == 1 else 'runs'} ended here,"
            f" {worker.failed:,} of them failed; everything accepted is kept in {self._address}."
        )

    def _asked_to_stop(self, number: int) -> None:
        name = signal.Signals(number).name
        self._signals += 1
        if self._signals == 1:
            count = self._worker.in_flight if self._worker is not None else 0
            flying = "1 run in flight may end" if count == 1 else f"{count:,} runs in flight may end"
            self._say(f"{name}: draining. Nothing new is claimed, {flying}; once more to stop at once.")
            self._stop.set()
        elif self._signals == 2 and self._worker is not None:
            self._say(f"{name} again: stopping at once. What was in flight goes back to the queue.")
            self._worker.hurry()
        else:
            os._exit(128 + number)

    def _greet(self, worker: Worker) -> None:
        app = self._app
        tasks = sorted({task.name for task in app.registry.tasks()})
        declared = sorted({task.queue for task in app.registry.tasks()})
        queues = ", ".join(self._queues) or f"all ({', '.join(declared)})"
        if self._live:
            from importlib.metadata import version

            self._console.print(
                f"[bold]{printing.plain(app.name)}[/]  [dim]Lineshaft {version('lineshaft')}[/]"
            )
            grid = printing.facts()
            grid.add_row("store", printing.plain(self._address))
            grid.add_row("worker", f"{worker.id} [dim](process {os.getpid()})[/]")
            grid.add_row("queues", printing.plain(queues))
            grid.add_row("tasks", printing.plain(_names(tasks)))
            self._console.print(grid)
        else:
            logging.getLogger("lineshaft").info(
                "Worker %d of %s serves queues %s with tasks %s from %s.",
                worker.id,
                app.name,
                queues,
                _names(tasks),
                self._address,
            )

    def _say(self, sentence: str) -> None:
        if self._live:
            self._console.print(printing.plain(sentence), soft_wrap=True)
        else:
            logging.getLogger("lineshaft").info("%s", sentence)


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:SERVED_NAMES_MAX]) or "none"
    return shown if len(names) <= SERVED_NAMES_MAX else f"{shown} and {len(names) - SERVED_NAMES_MAX} more"


def _log_to(console: Console, *, with_time: bool) -> None:
    """Show log records on the console, unless the program has handlers of its own."""
    handler = _ConsoleHandler(console)
    pattern = "%(asctime)s %(levelname)-7s %(message)s" if with_time else "%(levelname)s: %(message)s"
    handler.setFormatter(logging.Formatter(pattern))
    handler.setLevel(logging.INFO if with_time else logging.WARNING)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(handler)
    ours = logging.getLogger("lineshaft")
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)


class _ConsoleHandler(logging.Handler):
    """Prints above the status line instead of through it."""

    _STYLES: ClassVar = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "bold red"}

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = printing.lines(self.format(record))
            self._console.print(text, style=self._STYLES.get(record.levelno, ""), soft_wrap=True)
        except Exception:
            self.handleError(record)
