"""A subject: one system in one configuration, with all that is needed to run it and to say how it was run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

BENCHES: Final = ("import", "latency", "drain", "backlog", "kill")
"""What is measured, in the order of a round."""


class Server(StrEnum):
    """What a system keeps its runs in, where that is a process of its own."""

    REDIS = "redis, appendonly no"
    """Redis as it comes, without snapshots: what it accepted is gone with its process."""
    REDIS_FSYNC = "redis, appendonly yes, appendfsync always"
    """Redis that answers after an fsync, as Lineshaft does."""


class Accepted(StrEnum):
    """What a submission that has returned survives."""

    ON_DISK = "power loss"
    """It was on the disk (fsync) before the call returned."""
    IN_CACHE = "death of processes"
    """The operating system has it, and may lose it with the power."""
    IN_MEMORY = "death of workers"
    """A server has it in its memory, and loses it with its process."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many runs make a measurement long enough, given how fast a system is."""

    drain: int
    """About five to twenty seconds' worth."""
    window: int
    """How many of a backlog are timed: about three seconds' worth."""
    kill: int
    """Of 10 ms each, about four seconds' worth."""

    def scaled(self, scale: float) -> Sizes:
        """For a quick try: less of everything, and little of it meaningful."""
        return Sizes(*(max(20, round(size * scale)) for size in (self.drain, self.window, self.kill)))


@dataclass(frozen=True, slots=True)
class Subject:
    """One system in one configuration."""

    name: str
    config: str
    app: str
    """Its module in `apps`."""
    environment: str
    """The virtual environment that it is installed in, named as its file in `requirements`."""
    imports: str
    """The statement whose time is taken as that of importing it."""
    workers: tuple[tuple[str, ...], ...]
    """For each worker process to start: what follows `python`."""
    sizes: Sizes
    server: Server | None = None
    accepted: Accepted = Accepted.ON_DISK
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What its app module applies."""
    redelivery: Mapping[str, Any] = field(default_factory=dict)
    """Settings put in place of others in the kill test, so that what a dead worker held comes back within it."""
    redelivery_s: float = 0.0
    """After how long it then comes back, at the latest."""
    filling: Mapping[str, Any] = field(default_factory=dict)
    """Settings put in place of others while the long backlog is submitted, which is not timed."""
    benches: frozenset[str] = frozenset(BENCHES)
    """What of `BENCHES` is done with it: a variant need not do all."""

    @property
    def title(self) -> str:
        return f"{self.name}, {self.config}"

    def with_settings(self, others: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of the subject, with some of those within them replaced."""
        return {
            name: {**value, **others.get(name, {})} if isinstance(value, dict) else value
            for name, value in self.settings.items()
        }

    def described(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What the results say about how it was set up."""
        return {
            "accepted survives": str(self.accepted),
            "server": str(self.server) if self.server else "none",
            "workers": [" ".join(command) for command in self.workers],
            **settings,
        }
