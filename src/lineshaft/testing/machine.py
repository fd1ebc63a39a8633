"""One simulated machine: its processes share files, locks and a way to poke each other.

`Machine.process` starts a process; `Machine.host` and `Machine.surroundings` are what an app and a SQLite store
are given to live in it:

    process, host = machine.process("worker 1"), machine.host()
    store = SqliteStore(path, host.clock, machine.surroundings(process))  # in the process: it starts threads
    app = App("shop", store=store, host=host)
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lineshaft.core.host import Host
from lineshaft.core.ident import SystemChance
from lineshaft.store.sqlite import machine as sqlite
from lineshaft.store.sqlite.connection import OwnConnection, open_connection
from lineshaft.store.values import News
from lineshaft.testing.loop import SimulationLoop
from lineshaft.testing.processes import Process, SimulatedClock

Delivery = Callable[[Process, News], float | None]
"""Seconds after which a poke reaches a process; None for one that is lost."""


def at_once(_process: Process, _news: News) -> float:
    """Every poke arrives, and soon."""
    return 0.0


class Machine:
    """Files are the real ones; everything that processes share beside them is here."""

    def __init__(self, loop: SimulationLoop, *, seed: int, delivery: Delivery = at_once) -> None:
        self.delivery = delivery
        self._loop = loop
        self._seed = seed
        self._numbers = itertools.count(1)
        self._processes: list[Process] = []
        self._addresses: dict[str, _Pokes] = {}
        self._writing: dict[Path, _Turns] = {}
        self._workers: dict[tuple[Path, int], Process] = {}

    def process(self, name: str) -> Process:
        """Start a process."""
        process = Process(name, self._loop)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End all processes and the loop; what they were doing is dropped in silence, their `finally` included."""
        for process in self._processes:
            process.kill()
        self._loop.close()
        with _silence():
            for process in self._processes:
                process.bury()
            gc.collect()

    def host(self, *, offset_s: float = 0.0, drift: float = 0.0) -> Host:
        """What an app of a process is given; its wall clock may be wrong."""
        seed = self._seed * 1_000 + next(self._numbers)
        clock = SimulatedClock(self._loop, offset_s=offset_s, drift=drift)
        return Host(clock, SystemChance(seed), self._loop.threading)

    def surroundings(
        self, process: Process, connect: Callable[[Path], OwnConnection] = open_connection
    ) -> sqlite.Machine:
        """What a SQLite store of a process is given. `connect` may return connections that fail."""

        def opened(path: Path) -> OwnConnection:
            connection = connect(path)
            process.at_death(connection.close)
            return connection

        def pokes() -> _Pokes:
            return _Pokes(f"simulated-{next(self._numbers)}", process, self)

        return sqlite.Machine(
            threading=self._loop.threading,
            connect=opened,
            gate=lambda path: _Gate(process, self._writing.setdefault(path, _Turns(self._loop))),
            alive=lambda path: _Alive(path, process, self._workers),
            pokes=pokes,
        )

    def workers_of(self, process: Process) -> list[int]:
        """The numbers of the workers that show to live by this process."""
        return sorted(number for (_, number), holder in self._workers.items() if holder is process)

    def is_writing(self, path: Path) -> bool:
        """Whether some process holds the right to write to a file."""
        return path in self._writing and self._writing[path].holder is not None

    # Pokes

    def listen(self, pokes: _Pokes) -> None:
        self._addresses[pokes.address] = pokes

    def forget(self, address: str) -> None:
        self._addresses.pop(address, None)

    def deliver(self, address: str, news: News) -> bool:
        found = self._addresses.get(address)
        if found is None:
            return False
        after_s = self.delivery(found.process, news)
        if after_s is not None:
            self._loop.call_later(after_s, found.receive, news, context=found.process.context())
        return True


@contextmanager
def _silence() -> Iterator[None]:
    """Coroutines of the dead that are collected close themselves, on a loop and connections that are closed."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = hook


class _Turns:
    """The right to write to one file: first come, first served, past those that are stalled or dead."""

    def __init__(self, loop: SimulationLoop) -> None:
        self.holder: Process | None = None
        self._freed = loop.threading.condition()
        self._queue: list[Process] = []

    def take(self, process: Process) -> None:
        self._queue.append(process)
        try:
            self._freed.wait_for(lambda: self.holder is None and self._first() is process)
        finally:
            self._queue.remove(process)
        self.holder = process

    def leave(self, process: Process) -> None:
        if self.holder is process:
            self.holder = None
            self._freed.notify_all()

    def forget(self, process: Process) -> None:
        """It died: the kernel takes its locks back."""
        self._queue = [other for other in self._queue if other is not process]
        self.leave(process)
        self._freed.notify_all()

    def _first(self) -> Process | None:
        return next((process for process in self._queue if not process.is_stalled), None)


class _Gate:
    """One process's side of that right."""

    def __init__(self, process: Process, turns: _Turns) -> None:
        self._process = process
        self._turns = turns
        process.at_death(lambda: turns.forget(process))

    @contextmanager
    def entered(self) -> Iterator[None]:
        self._turns.take(self._process)
        try:
            yield
        finally:
            self._turns.leave(self._process)

    def close(self) -> None:
        """There is nothing to close."""


class _Alive:
    """Which process each worker belongs to."""

    def __init__(self, path: Path, process: Process, workers: dict[tuple[Path, int], Process]) -> None:
        self._path = path
        self._process = process
        self._workers = workers

    def take(self, worker: int) -> bool:
        holder = self._workers.get((self._path, worker))
        if holder is not None and holder.alive and holder is not self._process:
            return False
        self._workers[self._path, worker] = self._process
        return True

    def drop(self, worker: int) -> None:
        if self._workers.get((self._path, worker)) is self._process:
            del self._workers[self._path, worker]

    def is_dead(self, worker: int) -> bool:
        holder = self._workers.get((self._path, worker))
        return holder is None or not holder.alive


class _Pokes:
    """One process's address on the machine."""

    def __init__(self, address: str, process: Process, machine: Machine) -> None:
        self.address = address
        self.process = process
        self._machine = machine
        self._ears: list[Callable[[News], None]] = []
        process.at_death(self.close)

    def hear(self, loop: asyncio.AbstractEventLoop, heard: Callable[[News], None]) -> Callable[[], None]:  # noqa: ARG002 - there is only the one loop
        self._machine.listen(self)
        self._ears.append(heard)

        def end() -> None:
            if heard in self._ears:
                self._ears.remove(heard)

        return end

    def receive(self, news: News) -> None:
        for heard in self._ears.copy():
            heard(news)

    def send(self, address: str, news: News) -> bool:
        return address == self.address or self._machine.deliver(address, news)

    def close(self) -> None:
        self._machine.forget(self.address)
