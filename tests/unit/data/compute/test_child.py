"""What a child tells of itself and of exceptions, without a process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lineshaft.core.bounds import ERROR_TEXT_CHARS_MAX
from lineshaft.data.compute.child import FAILURE_BYTES_MAX, _Meter, _Targets, describe, in_child


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no")


class Unpicklable(LookupError):
    def __init__(self, lock: object, text: str) -> None:
        super().__init__(text)
        self.lock = lock

    def __reduce__(self) -> Any:
        raise TypeError("never")


def caught(error: BaseException) -> dict[str, Any]:
    def execute() -> None:
        raise error

    try:
        execute()
    except BaseException as raised:
        told: dict[str, Any] = json.loads(describe(raised, cause="raised"))
        return told
    raise AssertionError


def test_an_exception_is_told_with_its_bases_nearest_first() -> None:
    told = caught(Unpicklable(object(), "gone"))
    assert told["cause"] == "raised"
    assert told["mro"][0].endswith("test_child.Unpicklable")
    assert told["mro"][1:] == [
        "builtins.LookupError",
        "builtins.Exception",
        "builtins.BaseException",
    ]
    assert told["message"] == "gone"
    assert "in execute" in told["traceback"]


def test_an_exception_that_cannot_be_printed_is_told_all_the_same() -> None:
    told = caught(Unprintable())
    assert told["message"] == "(no message: its __str__ raised builtins.SystemExit)"
    assert told["mro"][0].endswith("Unprintable")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\0b", "a\\x00b"), ("lone \ud800", "lone \\ud800"), ("naïve ☃", "naïve ☃")],
)
def test_a_message_keeps_only_what_can_be_stored(text: str, message: str) -> None:
    assert caught(ValueError(text))["message"] == message


def test_a_description_is_bounded() -> None:
    huge = type("N" * 100_000, (ValueError,), {})
    deep: BaseException = huge("\U0001f600" * 10_000_000)
    for _ in range(5_000):
        outer = ValueError("outer")
        outer.__cause__ = deep
        deep = outer
    assert len(caught(huge("\U0001f600" * 1_000_000))["message"]) == ERROR_TEXT_CHARS_MAX
    assert len(describe(deep, cause="raised")) < FAILURE_BYTES_MAX


def test_a_target_that_is_no_task_is_refused() -> None:
    targets = _Targets({"name": None, "path": None})
    with pytest.raises(TypeError, match="json:dumps is a function, not a declared task"):
        targets.find("json:dumps")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        targets.find("json:nothing")
    with pytest.raises(ImportError, match="interactive session"):
        targets.find("__main__:task")


def test_a_meter_packs_what_it_measured() -> None:
    meter = _Meter()
    meter.start()
    assert meter.frame(2, b"body").endswith(b"\0\0\0\x04body")


def test_this_process_is_no_child() -> None:
    assert not in_child()
