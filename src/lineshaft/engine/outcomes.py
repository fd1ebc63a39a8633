"""What an attempt's end means for its run: pure decisions, before anything is written."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from types import TracebackType

from lineshaft.core import bounds
from lineshaft.core.errors import (
    RunCancelled,
    RunCrashed,
    RunFailed,
    RunFailure,
    RunOutcomeUnknown,
    RunTimedOut,
)
from lineshaft.core.policies import Retry, class_name, class_names
from lineshaft.core.states import FailureClass, State
from lineshaft.store.values import Failure


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception as far as the engine needs it, wherever it was raised."""

    failure: Failure
    classes: frozenset[str]


def raised(error: BaseException, kind: FailureClass = FailureClass.ERROR) -> Raised:
    """Describe an exception; one that cannot be printed is described all the same."""
    return Raised(
        Failure(kind, class_name(type(error)), printable(error), _traceback(error)), class_names(error)
    )


def printable(error: BaseException) -> str:
    """The message of an exception, safe to store and show."""
    try:
        text = str(error)
    except BaseException as second:
        text = f"<its message cannot be printed: {class_name(type(second))}>"
    return clean(text)


def clean(text: str) -> str:
    """Text without what a database or a terminal refuses, cut at its bound."""
    text = _storable(text)
    if len(text) > bounds.ERROR_TEXT_CHARS_MAX:
        text = text[: bounds.ERROR_TEXT_CHARS_MAX] + " … (cut)"
    return text


def _storable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _users_frames(error.__traceback__), limit=-20)
    except BaseException:
        return "<the traceback cannot be printed>"
    text = _storable("".join(lines))
    if len(text) > bounds.ERROR_TEXT_CHARS_MAX:
        # The end of a traceback says most.
        text = "… (cut)\n" + text[-bounds.ERROR_TEXT_CHARS_MAX :]
    return text


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    """Without the engine's own frames, through which every call of a user's function goes."""
    first = frames
    while first is not None and not _is_users(first):
        first = first.tb_next
    return first or frames


def _is_users(frame: TracebackType) -> bool:
    name = frame.tb_frame.f_globals.get("__name__", "")
    return not name.startswith(("lineshaft.", "concurrent.futures", "asyncio"))


def retry_pause_s(retry: Retry | None, attempt: int, error: Raised, fraction: float) -> float | None:
    """Seconds until the next attempt; None where there is none."""
    if retry is None or attempt >= retry.attempts or not retry.applies_to(error.classes):
        return None
    return retry.pause_s(attempt, fraction)


def failure_of(run_id: str, task: str, state: State, failure: Failure | None) -> RunFailure:
    """The error that `Run.result` raises for a run that ended without a result."""
    reason = f"{failure.type}: {failure.message}" if failure else ""
    subject = f"Run {run_id} of task {task!r}"
    if state == State.CANCELLED:
        return RunCancelled(f"{subject} was cancelled.")
    if state == State.OUTCOME_UNKNOWN:
        return RunOutcomeUnknown(
            f"{subject} may or may not have happened: its worker died after it had started, and it is declared"
            " at most once.",
            hint="Find out from what it was to change, then submit it again if need be.",
        )
    kinds: dict[FailureClass, type[RunFailure]] = {
        FailureClass.TIMEOUT: RunTimedOut,
        FailureClass.CRASH: RunCrashed,
    }
    kind = kinds.get(failure.kind, RunFailed) if failure else RunFailed
    return kind(f"{subject} failed: {reason}", hint=f"See `lineshaft runs show {run_id}`.")
