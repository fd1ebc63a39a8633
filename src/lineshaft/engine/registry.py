"""The tasks and queues of one app, and what applies to a lane of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lineshaft.core.errors import DeclarationError
from lineshaft.core.policies import Limit, Rate
from lineshaft.engine.declare import Declaration, check_limits, check_name
from lineshaft.store.values import Gate, Lane, LimitTerms, Terms

DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class QueueDeclaration:
    """A queue with limits of its own; a queue that needs none has no declaration."""

    name: str
    limits: tuple[Limit | Rate, ...]
    where: str = ""
    """File and line of the declaration, where that is known."""


class Registry:
    """What an app declares. Tasks are found by name and version."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], Declaration] = {}
        self._queues: dict[str, QueueDeclaration] = {}
        self._gates: dict[Lane, tuple[Gate, ...]] = {}

    def add(self, task: Declaration) -> None:
        other = self._tasks.get((task.name, task.version))
        if other is not None and other.target != task.target:
            raise DeclarationError(
                f"Task {task.name!r} (version {task.version}) is declared twice: at {other.where} and at"
                f" {task.where}.",
                hint="Give one of them name=… or another version=….",
            )
        if other is not None:
            raise DeclarationError(
                f"Task {task.name!r} (version {task.version}) is declared twice, at {task.where}.",
                hint="Two functions of one module have this name, or the module is imported under two names.",
            )
        _require_tenants(task, self.queue_limits(task.queue))
        self._tasks[task.name, task.version] = task

    def add_queue(self, name: str, limits: Sequence[Limit | Rate], where: str = "") -> None:
        check_name(name, "A queue's name")
        if name in self._queues:
            raise DeclarationError(
                f"Queue {name!r} is declared twice.", hint="Declare all its limits at once."
            )
        check_limits(limits, f"Queue {name!r}")
        for task in self._tasks.values():
            if task.queue == name:
                _require_tenants(task, limits)
        self._queues[name] = QueueDeclaration(name, tuple(limits), where)

    def find(self, lane: Lane) -> Declaration | None:
        """The task that executes runs of a lane; None if it is unknown here."""
        return self._tasks.get((lane.task, lane.version))

    def tasks(self) -> Iterable[Declaration]:
        return self._tasks.values()

    def build(self) -> None:
        """Resolve the hints of all tasks and build their codecs, as a worker does before it claims anything."""
        for task in self._tasks.values():
            task.build()

    def queue_limits(self, queue: str) -> tuple[Limit | Rate, ...]:
        declared = self._queues.get(queue)
        return () if declared is None else declared.limits

    def queue_where(self, queue: str) -> str:
        """Where a queue is declared; empty where that is not known."""
        declared = self._queues.get(queue)
        return "" if declared is None else declared.where

    def named(self, name: str) -> list[Declaration]:
        """All versions of a task."""
        return [task for task in self._tasks.values() if task.name == name]

    def gates(self, lane: Lane) -> tuple[Gate, ...]:
        """The limits that a lane's runs must pass, the same for all of them."""
        gates = self._gates.get(lane)
        if gates is None:
            task = self.find(lane)
            limits = [] if task is None else _of_task(task)
            limits += _of_queue(lane.queue, self.queue_limits(lane.queue))
            gates = tuple(limit.gate(lane.tenant) for limit in limits)
            if len(self._gates) > 100_000:
                self._gates.clear()
            self._gates[lane] = gates
        return gates

    def terms(self) -> Terms:
        """What a worker publishes in the store of all this."""
        limits = [limit for task in self._tasks.values() for limit in _of_task(task)]
        for queue in self._queues.values():
            limits += _of_queue(queue.name, queue.limits)
        retried = [task for task in self._tasks.values() if task.retry is not None]
        attempts = [(task.name, task.version, task.retry.attempts) for task in retried if task.retry]
        return Terms(tuple(limits), tuple(attempts))


def _require_tenants(task: Declaration, limits: Sequence[Limit | Rate]) -> None:
    """A limit for each tenant of a queue means nothing for a task whose runs have no tenants."""
    per_tenant = [limit for limit in limits if limit.per == "tenant"]
    if per_tenant and task.tenant is None:
        raise DeclarationError(
            f"Queue {task.queue!r} has {per_tenant[0]}, but the runs of its task {task.name!r} have no tenants.",
            hint="Give the task tenant=…, or another queue.",
        )


def _of_task(task: Declaration) -> list[LimitTerms]:
    return [_terms(limit, task.queue, task.name, task.version) for limit in task.limits]


def _of_queue(queue: str, limits: Iterable[Limit | Rate]) -> list[LimitTerms]:
    return [_terms(limit, queue) for limit in limits]


def _terms(
    limit: Limit | Rate, queue: str, task: str | None = None, version: str | None = None
) -> LimitTerms:
    period_us = None if isinstance(limit, Limit) else round(limit.per_seconds * 1_000_000)
    return LimitTerms(queue, task, version, limit.count, period_us, limit.per == "tenant")
