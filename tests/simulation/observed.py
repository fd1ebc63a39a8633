"""What the history keeps of the calls of the store's port, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Fields = dict[str, Any] | None


def _claim(args: tuple[Any, ...], answer: Any) -> Fields:
    request = args[0]
    if not answer.runs:
        return None
    return {
        "worker": request.worker,
        "now_us": request.now_us,
        "runs": [[run.id, run.fence, run.lane.task, run.lane.tenant, run.due_us] for run in answer.runs],
        "alone": answer.suspects_wait,
    }


def _settle_asked(args: tuple[Any, ...], _: Any) -> Fields:
    return {"runs": [[each.run_id, each.fence, each.worker, str(each.state)] for each in args[0]]}


def _settle(args: tuple[Any, ...], answer: Any) -> Fields:
    runs = [
        [each.run_id, each.fence, each.worker, str(each.state), kept, each.charged]
        for each, kept in zip(args[0], answer, strict=True)
    ]
    return {"runs": runs}


def _rescue(_: tuple[Any, ...], answer: Any) -> Fields:
    if not answer.workers:
        return None
    return {
        "dead": list(answer.workers),
        "returned": answer.returned,
        "suspects": answer.suspects,
        "failed": list(answer.failed),
        "unknown": list(answer.unknown),
    }


def _register(args: tuple[Any, ...], answer: Any) -> Fields:
    return {"worker": answer, "lease_s": args[0].lease_us / 1e6}


def _beat(args: tuple[Any, ...], answer: Any) -> Fields:
    return {"worker": args[0], "lease_s": args[1] / 1e6, "held": answer}


def _worker(args: tuple[Any, ...], _: Any) -> Fields:
    return {"worker": args[0]}


def _park(_: tuple[Any, ...], answer: Any) -> Fields:
    return {"parked": answer} if answer else None


OBSERVED: dict[str, Callable[[tuple[Any, ...], Any], Fields]] = {
    "claim": _claim,
    "settle asked": _settle_asked,
    "settle": _settle,
    "release asked": _settle_asked,
    "release": _settle,
    "rescue": _rescue,
    "register": _register,
    "beat": _beat,
    "unregister asked": _worker,
    "park": _park,
}
"""By call; what is not among them is not kept."""
