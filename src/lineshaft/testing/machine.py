"""One simulated machine: its processes share files, locks and a way to poke each other.

`Machine.process` starts a process; `Machine.host` and `Machine.surroundings` are what an app and a SQLite store
are given to live in it:

    process = machine.process("worker 1")
    app = App("shop", store=SqliteStore(path, host.clock, surroundings), host=host)
"""

from __future__ import annotations

import asyncio
import itertools
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
        self._addresses: dict[str, _Pokes] = {}
        self._writing: dict[Path, _Turns] = {}
        self._workers: dict[tuple[Path, int], Process] = {}

    def process(self, name: str) -> Process:
        """Start a process."""
        return Process(name, self._loop)

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


class _Turns:
    """The right to write to one file. Whoever of those that wait is first to notice that it is free has it."""

    def __init__(self, loop: SimulationLoop) -> None:
        self.freed = loop.threading.condition()
        self.holder: Process | None = None


class _Gate:
    """One process's side of that right; the kernel takes it back at its death."""

    def __init__(self, process: Process, turns: _Turns) -> None:
        self._process = process
        self._turns = turns
        process.at_death(self._leave)

    @contextmanager
    def entered(self) -> Iterator[None]:
        turns = self._turns
        turns.freed.wait_for(lambda: turns.holder is None)
        turns.holder = self._process
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._turns.holder is self._process:
            self._turns.holder = None
            self._turns.freed.notify_all()

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
