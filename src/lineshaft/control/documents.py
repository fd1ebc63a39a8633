"""Views as JSON documents: the one shape of each that programs read, whoever prints or serves it.

Times are ISO 8601 in UTC, durations are seconds, and payloads stand as the JSON that they are.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pydantic_core

from lineshaft.store.values import AttemptView, Failure, QueueView, RunView, WorkerView

if TYPE_CHECKING:
    from lineshaft.control.explain import Explained
    from lineshaft.control.health import Check
    from lineshaft.control.queues import QueueDetails
    from lineshaft.control.runs import RunDetails
    from lineshaft.engine.why import Why

Document = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def run(view: RunView) -> Document:
    """A run as a listing has it."""
    return {
        "id": view.id,
        "task": view.lane.task,
        "version": view.lane.version,
        "queue": view.lane.queue,
        "tenant": view.lane.tenant,
        "state": view.state,
        "attempts": view.attempts,
        "crashes": view.crashes,
        "priority": view.priority,
        "key": view.key,
        "submitted": when(view.submitted_us),
        "due": when(view.due_us),
        "started": when(view.claimed_us if view.started_us is None else view.started_us),
        "finished": when(view.finished_us),
        "wall_s": seconds(view.wall_us),
        "cpu_s": seconds(view.cpu_us),
        "worker": view.worker,
        "cancel_requested": view.cancel_requested,
        "first_id": view.first_id,
        "retry_of": view.retry_of,
        "error": failure(view.failure),
    }


def run_details(details: RunDetails) -> Document:
    """A run with all that is known of it."""
    view = details.run
    return run(view) | {
        "retried_by": details.retried_by,
        "arguments": payload(view.args),
        "result": payload(view.result),
        "progress": None if details.progress is None else asdict(details.progress),
        "earlier_attempts": [attempt(each) for each in details.attempts],
        "why": why(details.why),
    }


def attempt(view: AttemptView) -> Document:
    """An attempt that did not end its run."""
    return {
        "number": view.number,
        "started": when(view.started_us),
        "finished": when(view.finished_us),
        "wall_s": seconds(view.wall_us),
        "cpu_s": seconds(view.cpu_us),
        "error": failure(view.failure),
    }


def why(answer: Why) -> Document:
    """The reason why a run is not finished."""
    return {
        "run": answer.run_id,
        "state": answer.state,
        "reason": answer.reason,
        "sentence": answer.sentence,
        "until": when(answer.until_us),
        "limit": answer.limit,
        "holders": [asdict(holder) for holder in answer.holders],
        "ahead": answer.ahead,
    }


def queue(view: QueueView, now_us: int) -> Document:
    """A queue as a listing has it."""
    return {
        "queue": view.queue,
        "counts": dict(view.counts),
        "oldest_ready_s": _age(view.oldest_ready_us, now_us),
    }


def queue_details(details: QueueDetails, now_us: int) -> Document:
    """A queue with its limits and workers."""
    return {
        "queue": details.queue,
        "counts": dict(details.counts),
        "oldest_ready_s": _age(details.oldest_ready_us, now_us),
        "limits": [
            {
                "key": limit.key,
                "count": limit.count,
                "period_s": seconds(limit.period_us),
                "per_tenant": limit.per_tenant,
                "held": limit.held if limit.period_us is None else None,
                "opens": when(limit.opens_us),
                "holders": [asdict(holder) for holder in limit.holders],
            }
            for limit in details.limits
        ],
        "workers": [worker(each) for each in details.workers],
    }


def worker(view: WorkerView) -> Document:
    """A worker."""
    return {
        "id": view.id,
        "host": view.host,
        "pid": view.pid,
        "alive": view.alive,
        "started": when(view.started_us),
        "held": view.held,
        "queues": list(view.queues),
        "tasks": [{"task": task, "version": version} for task, version in view.tasks],
    }


def check(finding: Check) -> Document:
    """A finding of the doctor."""
    return asdict(finding)


def explained(task: Explained) -> Document:
    """What applies to a task."""
    return asdict(task)


def failure(error: Failure | None) -> Document | None:
    """Why an attempt did not succeed."""
    return None if error is None else error.as_json()


def payload(data: bytes | None) -> Any:
    """Arguments or a result; None where there is none."""
    return pydantic_core.from_json(data) if data else None


def when(us: int | None) -> str | None:
    """A wall time in ISO 8601."""
    return None if us is None else (_EPOCH + timedelta(microseconds=us)).isoformat()


def seconds(us: int | None) -> float | None:
    """A duration."""
    return None if us is None else us / 1e6


def _age(us: int | None, now_us: int) -> float | None:
    return None if us is None else max(0, now_us - us) / 1e6
