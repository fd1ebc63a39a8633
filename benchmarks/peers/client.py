"""The submitting side of a measurement, a process in the system's own environment.

`python -m benchmarks.peers.client APP` takes commands as lines of JSON and answers each with one. What is timed is
timed here, so that neither the start of this process nor the way to it counts.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import platform
import sqlite3
import sys
import time
import traceback
from importlib.metadata import version
from typing import Any, TextIO

from benchmarks.peers.contract import MeasuredApp


class Client:
    """Each method is a command."""

    def __init__(self, app: MeasuredApp) -> None:
        self._app = app

    async def submit_many(self, task: str, first: int, count: int) -> float:
        """Seconds that it took to have so many accepted."""
        began_s = time.perf_counter()
        await self._app.submit_many(task, range(first, first + count))
        return time.perf_counter() - began_s

    async def submit_each(self, first: int, count: int, seconds_max: float) -> list[float]:
        """Submit one after the other; seconds that each took. Ends early when the time is over."""
        return await self._timed(self._app.submit, first, count, seconds_max)

    async def call_each(self, first: int, count: int, seconds_max: float) -> list[float]:
        """Submit and wait for the result, one after the other; seconds that each took."""
        return await self._timed(self._app.call, first, count, seconds_max)

    async def _timed(self, act: Any, first: int, count: int, seconds_max: float) -> list[float]:
        took_s: list[float] = []
        until_s = time.perf_counter() + seconds_max
        for number in range(first, first + count):
            began_s = time.perf_counter()
            if began_s > until_s:
                break
            await act(number)
            took_s.append(time.perf_counter() - began_s)
        return took_s

    async def unfinished(self) -> int:
        return await self._app.unfinished()

    async def versions(self) -> dict[str, str]:
        found = {name: version(name) for name in self._app.packages}
        return {**found, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}


async def serve(app: MeasuredApp, answers: TextIO) -> None:
    """Answer commands until there are no more."""
    client = Client(app)
    await app.open()
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, arguments = json.loads(line)
            try:
                answer = {"answer": await getattr(client, command)(*arguments)}
            except Exception:  # told to the harness, which raises it there
                answer = {"error": traceback.format_exc()}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        await app.close()


def main() -> None:
    """Serve, with a standard output of our own: libraries that print must not answer for us."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        module = importlib.import_module(f"benchmarks.peers.apps.{sys.argv[1]}")
        asyncio.run(serve(module.measured, answers))


if __name__ == "__main__":
    main()
