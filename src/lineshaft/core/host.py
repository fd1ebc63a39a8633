"""What a process has of its machine: time, chance, and threads.

Whatever starts a thread of its own, or blocks one, takes it from here, so that a simulation can give threads that
a seed decides over (`lineshaft.testing`). Functions that are called in a thread and come back need nothing of
this: they go through `loop.run_in_executor`, which belongs to the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from lineshaft.core.clock import Clock, SystemClock
from lineshaft.core.ident import Chance, SystemChance


class Thread(Protocol):
    """A thread that serves until it ends by itself; the end of the process does not wait for it."""

    def is_alive(self) -> bool: ...
    def join(self) -> None: ...


class Event(Protocol):
    """A flag that threads wait for; like `threading.Event`."""

    def set(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Condition(AbstractContextManager[Any], Protocol):
    """A lock with a wish to be told; like `threading.Condition`."""

    def wait_for(self, predicate: Callable[[], object], timeout: float | None = None) -> object: ...
    def notify_all(self) -> None: ...


class Threading(Protocol):
    """Where threads come from, and what they block on."""

    def start(self, serve: Callable[[], None], name: str) -> Thread: ...
    def event(self) -> Event: ...
    def condition(self) -> Condition: ...


class SystemThreading:
    """Threads of the operating system."""

    def start(self, serve: Callable[[], None], name: str) -> Thread:
        thread = threading.Thread(target=serve, name=name, daemon=True)
        thread.start()
        return thread

    def event(self) -> Event:
        return threading.Event()

    def condition(self) -> Condition:
        return threading.Condition()


@dataclass(frozen=True, slots=True)
class Host:
    """One process's view of its machine. Left alone, it is this process's own."""

    clock: Clock = field(default_factory=SystemClock)
    chance: Chance = field(default_factory=SystemChance)
    threading: Threading = field(default_factory=SystemThreading)
