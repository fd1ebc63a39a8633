"""What a store meets around its file: connections, other writers, workers that live or do not, pokes, threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lineshaft.core.host import SystemThreading, Threading
from lineshaft.store.sqlite.alive import Alive
from lineshaft.store.sqlite.connection import OwnConnection, open_connection
from lineshaft.store.sqlite.gate import Gate
from lineshaft.store.sqlite.pokes import Pokes
from lineshaft.store.values import News


class Turns(Protocol):
    """The turn to write among the processes on one file."""

    def entered(self) -> AbstractContextManager[None]:
        """Hold it, once it is ours; blocks the thread until then."""

    def close(self) -> None: ...


class Liveness(Protocol):
    """Which workers' processes are there."""

    def take(self, worker: int) -> bool:
        """Show that this worker lives, until `drop` or the end of the process.

        False if another process has its number: its own registration under that was rolled back.
        """

    def drop(self, worker: int) -> None: ...

    def is_dead(self, worker: int) -> bool:
        """Whether the process of this worker is gone for certain."""


class Poking(Protocol):
    """Telling other processes that something was committed; never waited for, and may be lost."""

    address: str
    """Where others reach this process; empty where they cannot."""

    def hear(self, loop: asyncio.AbstractEventLoop, heard: Callable[[News], None]) -> Callable[[], None]:
        """Call `heard` on the loop with what others poke, until what is returned is called."""

    def send(self, address: str, news: News) -> bool:
        """Poke one process; false if it is not there any more."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Machine:
    """Left alone, it is the one that this process runs on; a simulation gives another."""

    threading: Threading = field(default_factory=SystemThreading)
    connect: Callable[[Path], OwnConnection] = open_connection
    gate: Callable[[Path], Turns] = Gate
    alive: Callable[[Path], Liveness] = Alive
    pokes: Callable[[], Poking] = Pokes
