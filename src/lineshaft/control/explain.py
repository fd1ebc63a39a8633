"""What applies to a task: each setting, its value, and whether it was declared or is the default."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lineshaft.core import bounds
from lineshaft.core.duration import brief
from lineshaft.core.policies import Limit, Rate, Retry
from lineshaft.engine.declare import DEFAULT_QUEUE, Declaration
from lineshaft.engine.places import place_of
from lineshaft.engine.registry import DEFAULT_TENANT, Registry

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that applies."""

    name: str
    value: str
    source: str
    """`default`, or where it was declared: a file and line."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One version of a task."""

    task: str
    version: str
    function: str
    where: str
    settings: tuple[Setting, ...]


def explain(registry: Registry, name: str) -> list[Explained]:
    """Every version of a task; empty where none is declared under this name."""
    return [
        Explained(
            task=task.name,
            version=task.version,
            function=task.target.replace(":", "."),
            where=task.where,
            settings=tuple(_settings(task, registry)),
        )
        for task in registry.named(name)
    ]


def known(registry: Registry) -> list[str]:
    """The names of all tasks, for who asked for one that is not there."""
    return sorted({task.name for task in registry.tasks()})


def _settings(task: Declaration, registry: Registry) -> Iterable[Setting]:
    def said(name: str, value: str, is_default: bool) -> Setting:
        return Setting(name, value, DEFAULT if is_default else task.where)

    signature = task.signature
    yield Setting("arguments", _parameters(signature.parameters), task.where)
    yield Setting("result", _hint(signature.result), task.where)
    yield said("queue", task.queue, task.queue == DEFAULT_QUEUE)
    yield said("runs in", _place(task), task.run_in != "process" and signature.transaction is None)
    yield said(
        "timeout",
        f"{brief(task.timeout_s)} for each attempt",
        task.timeout_s == bounds.TIMEOUT_S_DEFAULT,
    )
    yield said("retry", _retry(task.retry), task.retry is None)
    yield said("priority", str(task.priority), task.priority == 0)
    yield said("tenant", _tenant(task), task.tenant is None)
    yield from _limits(task, registry)
    if task.batch is not None:
        yield said("batch", f"up to {task.batch:,} runs, after at most {brief(task.batch_wait_s)}", False)
        split = "looked for by halves" if task.split else "not looked for: all of a batch that raised fail"
        yield said("culprit of a batch", split, task.split == (signature.transaction is not None))
    once = "at most once: an attempt is recorded before it starts, and never repeated"
    again = f"executed again; failed after killing {bounds.CRASHES_MAX + 1} workers that ran it alone"
    yield said("when a worker dies", once if task.at_most_once else again, not task.at_most_once)
    yield said(
        "a key is kept",
        f"{brief(task.key_retention_s)} after its run has finished",
        task.key_retention_s == bounds.KEY_RETENTION_S,
    )
    yield Setting("payload", f"at most {bounds.PAYLOAD_BYTES_MAX // 1_024:,} KiB each way", DEFAULT)


def _limits(task: Declaration, registry: Registry) -> Iterable[Setting]:
    of_queue = registry.queue_limits(task.queue)
    if not task.limits and not of_queue:
        yield Setting("limits", "none", DEFAULT)
    for limit in task.limits:
        yield Setting("limit", _limit(limit), task.where)
    for limit in of_queue:
        yield Setting("limit", f"{_limit(limit)}, shared by the queue", registry.queue_where(task.queue))


def _limit(limit: Limit | Rate) -> str:
    each = " for each tenant" if limit.per == "tenant" else ""
    if isinstance(limit, Limit):
        return f"{limit.count:,} at once{each}"
    return f"{limit.count:,} starts in {brief(limit.per_seconds)}{each}"


def _place(task: Declaration) -> str:
    if task.signature.transaction is not None:
        return "a transaction of the store"
    return {
        "loop": "the event loop",
        "thread": "a thread",
        "process": "a process of the pool",
    }.get(place_of(task), "the event loop" if task.is_async else "a thread")


def _retry(retry: Retry | None) -> str:
    if retry is None:
        return "none: a run whose function raised has failed"
    kinds = ", ".join(kind.__qualname__ for kind in retry.on)
    never = f", never on {', '.join(kind.__qualname__ for kind in retry.never)}" if retry.never else ""
    return (
        f"up to {retry.attempts} attempts; pauses from {brief(retry.initial_s)} × {retry.factor:g} up to"
        f" {brief(retry.maximum_s)}, full jitter; on {kinds}{never}"
    )


def _tenant(task: Declaration) -> str:
    if task.tenant is None:
        return f"{DEFAULT_TENANT!r}, unless the submission names one"
    return "required with each submission" if task.tenant == "required" else "derived from the arguments"


def _parameters(parameters: Iterable[inspect.Parameter]) -> str:
    return ", ".join(f"{each.name}: {_hint(each.annotation)}" for each in parameters) or "none"


def _hint(hint: Any) -> str:
    if hint is inspect.Parameter.empty:
        return "plain JSON (no hint)"
    if hint is None or hint is type(None):
        return "None"
    return inspect.formatannotation(hint)
