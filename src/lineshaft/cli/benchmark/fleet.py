"""The worker processes of one measurement, started together and watched over their pipes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from lineshaft.cli.failing import CommandFailed
from lineshaft.core.clock import Clock
from lineshaft.core.spawn import Background

BOOT_S_MAX = 60.0
MAKE = "lineshaft.cli.benchmark.work:bench_app"


class Fleet:
    """Worker processes that have booted and wait for `go`. `make` names the function that makes their app."""

    def __init__(self, address: str, count: int, clock: Clock, make: str = MAKE) -> None:
        self._arguments = [address, make]
        self._count = count
        self._clock = clock
        self._processes: list[asyncio.subprocess.Process] = []
        self._done: list[int] = []
        self._background = Background()
        self._all_done = asyncio.Event()
        self._wanted = 0
        self._first: tuple[float, int] | None = None
        self._last_s = 0.0
        self._died = False

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", "lineshaft.cli.benchmark.process", *self._arguments]
        pipe = asyncio.subprocess.PIPE
        try:
            for _ in range(self._count):
                process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
                self._processes.append(process)
            async with asyncio.timeout(BOOT_S_MAX):
                for process in self._processes:
                    assert process.stdout is not None
                    if await process.stdout.readline() != b"ready\n":
                        raise CommandFailed("A worker process did not start.", hint="Its error stands above.")
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    def go(self) -> None:
        """Let all of them register and claim."""
        self._done = [0] * len(self._processes)
        for number, process in enumerate(self._processes):
            self._background.spawn(self._listen(number, process), f"bench-{number}")
            assert process.stdin is not None
            process.stdin.write(b"go\n")

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    @property
    def done(self) -> int:
        """Runs that ended in all of them so far; all that ever will, once they have been left."""
        return sum(self._done)

    async def drain(self, count: int, show: Callable[[int], None]) -> tuple[int, float]:
        """Wait until so many runs are done; how many were done after the first that was seen, in which time."""
        self._wanted = count
        self._look()
        while not self._all_done.is_set():
            show(self.done)
            try:
                async with asyncio.timeout(0.1):
                    await self._all_done.wait()
            except TimeoutError:
                continue
        show(self.done)
        if self._died or self._first is None:
            raise CommandFailed("A worker process ended early.", hint="Its error stands above.")
        first_s, first_done = self._first
        return count - first_done, self._last_s - first_s

    async def _listen(self, number: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self._done[number] = int(line)
            self._look()
        if not self._all_done.is_set():
            self._died = True
            self._all_done.set()

    def _look(self) -> None:
        now_s, total = self._clock.monotonic_s(), self.done
        if total and self._first is None:
            self._first = now_s, total
        if self._wanted and total >= self._wanted and not self._all_done.is_set():
            self._last_s = now_s
            self._all_done.set()

    async def _stop(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                async with asyncio.timeout(20):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await self._background.wait()
