"""The states of a run, and the one table of how they may follow each other."""

from __future__ import annotations

from enum import StrEnum

from lineshaft.core.errors import InvalidTransition


class State(StrEnum):
    """Where a run stands. The last four are final and never left."""

    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    COMPENSATING = "compensating"
    PAUSED = "paused"
    PARKED = "parked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    OUTCOME_UNKNOWN = "outcome_unknown"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.OUTCOME_UNKNOWN})

TRANSITIONS: dict[State, frozenset[State]] = {
    # due · cancelled · paused
    State.SCHEDULED: frozenset({State.READY, State.CANCELLED, State.PAUSED}),
    # claimed · cancelled · paused · no live worker can execute it
    State.READY: frozenset({State.RUNNING, State.CANCELLED, State.PAUSED, State.PARKED}),
    # any end · a retry or a hand-back · waiting durably · compensating · refused by the present code
    State.RUNNING: FINAL | {State.SCHEDULED, State.READY, State.WAITING, State.COMPENSATING, State.PARKED},
    # what it waited for came, or it must unwind
    State.WAITING: frozenset({State.READY, State.COMPENSATING, State.CANCELLED, State.PAUSED}),
    # compensation ends · the worker is lost or hands it back
    State.COMPENSATING: frozenset({State.FAILED, State.CANCELLED, State.READY, State.WAITING}),
    # resumed · cancelled
    State.PAUSED: frozenset({State.READY, State.SCHEDULED, State.WAITING, State.CANCELLED}),
    # a worker that can execute it came · cancelled
    State.PARKED: frozenset({State.READY, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.OUTCOME_UNKNOWN: frozenset(),
}


def check(run_id: str, before: State, after: State) -> None:
    """Raise `InvalidTransition` unless a run may go from `before` to `after`."""
    if after not in TRANSITIONS[before]:
        raise InvalidTransition(f"Run {run_id} is {before} and cannot become {after}.")


class FailureClass(StrEnum):
    """Why a run failed; what dead letters are sorted by."""

    ERROR = "error"
    TIMEOUT = "timeout"
    CRASH = "crash"
    RESULT = "result"
