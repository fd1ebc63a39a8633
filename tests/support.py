"""What the tests of the engine share: an app on a fresh file, a worker around a block, patience, and processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from lineshaft import App, Run, State
from lineshaft.engine.worker import Worker

ROOT = Path(__file__).parents[1]
PATIENCE_S = 30.0
"""How long anything is waited for; far more than it takes, so that only what never comes fails."""

STRICT = (sys.executable, "-W", "error", "-W", "ignore:Binding:DeprecationWarning")
"""A Python for which warnings are errors, but for the false one that `pyproject.toml` tells of."""


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


def new_app(folder: Path, **options: Any) -> App:
    """An app on the store of this folder; several on one folder stand for several processes."""
    return App("test", store=address(folder), **options)


@asynccontextmanager
async def working(app: App, **options: Any) -> AsyncIterator[Worker]:
    """The app open, with a worker in this process."""
    async with app, app.worker(**{"lease": 10, "grace": 5, **options}) as worker:
        yield worker


async def result_of(run: Run[Any]) -> Any:
    return await run.result(timeout=PATIENCE_S)


async def results_of(runs: Sequence[Run[Any]]) -> list[Any]:
    return list(await asyncio.gather(*(result_of(run) for run in runs)))


async def error_of(run: Run[Any]) -> Exception:
    """How a run failed; an assertion if it succeeded."""
    try:
        result = await result_of(run)
    except Exception as error:
        return error
    raise AssertionError(f"{run} succeeded with {result!r}")


async def eventually(condition: Callable[[], Any], what: str = "", *, patience_s: float = PATIENCE_S) -> Any:
    """Wait until a condition holds; it may be a coroutine function."""
    deadline_s = time.monotonic() + patience_s
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"never came: {what or condition}")
        await asyncio.sleep(0.02)


async def reaches(run: Run[Any], *states: State) -> State:
    async def reached() -> State | None:
        state = await run.status()
        return state if state in states else None

    found: State = await eventually(reached, f"{run} in {states}")
    return found


def rows(app: App, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What a query finds in the app's store."""
    connection = app.connect()
    try:
        return connection.execute(statement, parameters).fetchall()
    finally:
        connection.close()


class Overlap:
    """Counts how many bodies are inside at once. Safe from any thread."""

    def __init__(self) -> None:
        self._inside: dict[Any, int] = {}
        self.most: dict[Any, int] = {}

    def enter(self, key: Any = None) -> None:
        self._inside[key] = self._inside.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self._inside[key])

    def leave(self, key: Any = None) -> None:
        self._inside[key] -= 1


class Program:
    """A process on the store of a folder: a module that is run, `tests/crash/programs.py` where none is named."""

    def __init__(
        self, folder: Path, *arguments: str, module: str = "tests.crash.programs", **environment: str
    ) -> None:
        self.folder = folder
        self.environment = environment
        self.module = module
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Program:
        environment = {
            **os.environ,
            "LINESHAFT_STORE": address(self.folder),
            "PROGRAM_FOLDER": str(self.folder),
            **self.environment,
        }
        with (self.folder / "program.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        return self

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def stop(self) -> None:
        """Stop it between two of its writes: in the middle of one it would hold up everybody, as documented."""
        while True:
            self.send(signal.SIGSTOP)
            assert self.process is not None
            await eventually(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)
            if await asyncio.to_thread(self._writes_nothing):
                return
            self.send(signal.SIGCONT)
            await asyncio.sleep(0.01)

    def _writes_nothing(self) -> bool:
        with (
            (self.folder / "store.db-gate").open("rb") as gate,
            (self.folder / "store.db-turn").open("rb") as turn,
        ):
            try:
                for lock in (turn, gate):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)

    def __enter__(self) -> Program:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return (self.folder / "program.log").read_text(errors="replace")
