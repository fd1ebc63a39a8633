"""What the end of an attempt means for its run."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from lineshaft import Retry
from lineshaft.core import bounds, errors
from lineshaft.core.states import FailureClass, State
from lineshaft.engine.outcomes import Raised, clean, failure_of, printable, raised, retry_pause_s
from lineshaft.store.values import Failure


class Unprintable(Exception):
    def __str__(self) -> str:
        raise LookupError("no message")


def caught(error: Exception) -> Raised:
    try:
        raise error
    except Exception as same:
        return raised(same)


# Describing an exception


def test_an_exception_is_described() -> None:
    found = caught(KeyError("missing"))
    assert (found.failure.kind, found.failure.type) == (FailureClass.ERROR, "builtins.KeyError")
    assert found.failure.message == "'missing'"
    assert found.failure.traceback.startswith("Traceback (most recent call last):\n")
    assert "raise error" in found.failure.traceback
    assert found.classes >= {"builtins.KeyError", "builtins.LookupError", "builtins.Exception"}
    assert raised(TimeoutError(), FailureClass.TIMEOUT).failure.kind is FailureClass.TIMEOUT


def test_one_that_cannot_be_printed_is_described_all_the_same() -> None:
    found = caught(Unprintable())
    assert found.failure.message == "<its message cannot be printed: builtins.LookupError>"
    assert "Unprintable" in found.failure.traceback


def test_a_traceback_that_cannot_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile(Exception):
        @property
        def __notes__(self) -> list[str]:
            raise KeyboardInterrupt

    assert caught(Hostile("it")).failure == Failure(
        FailureClass.ERROR,
        f"{__name__}.{Hostile.__qualname__}",
        "it",
        "<the traceback cannot be printed>",
    )


def test_what_a_database_refuses_is_replaced() -> None:
    assert clean("a\0b \ud800 ☃") == "a\N{REPLACEMENT CHARACTER}b ? ☃"


def test_a_message_is_cut_at_its_bound() -> None:
    whole = "x" * bounds.ERROR_TEXT_CHARS_MAX
    assert clean(whole) == whole
    assert clean(whole + "y") == whole + " … (cut)"
    assert printable(ValueError(whole + "y")) == whole + " … (cut)"


def test_of_a_long_traceback_the_end_is_kept() -> None:
    def traceback_of(size: int) -> str:
        return caught(ValueError("x" * size)).failure.traceback

    room = bounds.ERROR_TEXT_CHARS_MAX - len(traceback_of(1)) + 1
    assert traceback_of(room).startswith("Traceback")
    long = traceback_of(room + 1)
    assert long.startswith("… (cut)\nraceback")
    assert long.endswith("x\n")
    assert len(long) == bounds.ERROR_TEXT_CHARS_MAX + len("… (cut)\n")


def test_a_deep_traceback_keeps_the_frames_nearest_to_the_error() -> None:
    def descend(depth: int) -> None:
        if depth:
            descend(depth - 1)
        raise ValueError("deep down")

    with pytest.raises(ValueError, match="deep down") as excinfo:
        descend(100)
    text = raised(excinfo.value).failure.traceback
    assert text.count("in descend") + text.count("times]") <= 20
    assert "deep down" in text


async def test_frames_of_the_engine_are_left_out() -> None:
    """The call passes through asyncio and a thread of an executor before it comes to the user's function."""

    def users() -> None:
        raise ValueError

    with ThreadPoolExecutor(1) as executor:
        loop = asyncio.get_running_loop()
        [error] = await asyncio.gather(loop.run_in_executor(executor, users), return_exceptions=True)
    # This test is the first of the user's frames, since it was called by nothing else of ours.
    assert isinstance(error, ValueError)
    text = raised(error).failure.traceback
    assert "in users" in text
    assert "concurrent/futures" not in text


def test_where_all_frames_are_the_engines_they_are_kept() -> None:
    with pytest.raises(AttributeError) as excinfo:
        failure_of("r", "t", State.FAILED, 3)  # type: ignore[arg-type]  # so that it raises itself
    error = excinfo.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without this test's own frame
    assert "in failure_of" in raised(error).failure.traceback


# What follows


def test_whether_there_is_another_attempt() -> None:
    error = caught(ValueError())
    retry = Retry(attempts=3, initial=8, factor=2, on=(ValueError,))
    assert retry_pause_s(None, 1, error, 0.5) is None
    assert retry_pause_s(retry, 1, error, 0.5) == 4
    assert retry_pause_s(retry, 2, error, 0.5) == 8
    assert retry_pause_s(retry, 3, error, 0.5) is None
    assert retry_pause_s(retry, 1, caught(KeyError()), 0.5) is None


@pytest.mark.parametrize(
    ("state", "kind", "expected"),
    [
        (State.CANCELLED, None, errors.RunCancelled),
        (State.CANCELLED, FailureClass.TIMEOUT, errors.RunCancelled),
        (State.OUTCOME_UNKNOWN, None, errors.RunOutcomeUnknown),
        (State.FAILED, FailureClass.TIMEOUT, errors.RunTimedOut),
        (State.FAILED, FailureClass.CRASH, errors.RunCrashed),
        (State.FAILED, FailureClass.ERROR, errors.RunFailed),
        (State.FAILED, FailureClass.RESULT, errors.RunFailed),
        (State.FAILED, None, errors.RunFailed),
    ],
)
def test_how_a_failed_run_is_told(state: State, kind: FailureClass | None, expected: type[Exception]) -> None:
    failure = None if kind is None else Failure(kind, "builtins.ValueError", "no ink", "")
    error = failure_of("r1", "greet", state, failure)
    assert type(error) is expected
    assert "Run r1 of task 'greet'" in str(error)
    if state is State.FAILED and failure:
        assert "builtins.ValueError: no ink" in str(error)
