"""How a command ends: by exit code, and by one clear sentence on standard error."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from lineshaft.cli import entry, failing
from lineshaft.core.errors import InvalidSetting, RunNotFound, StoreUnavailable


def ending(monkeypatch: pytest.MonkeyPatch, command: Any) -> int:
    """The exit code where the command that was asked for does this."""
    monkeypatch.setattr(entry, "app", command)
    return entry.run()


def raising(error: BaseException) -> Any:
    def command(**_: Any) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (RunNotFound("There is no run r1.", hint="Look."), failing.NOT_FOUND, "There is no run r1."),
        (InvalidSetting("limit is -1."), failing.BAD_INPUT, "limit is -1."),
        (StoreUnavailable("It is locked."), failing.FAILED, "It is locked."),
        (failing.CommandFailed("No such app.", hint="Name it.", exit_code=7), 7, "No such app."),
        (KeyboardInterrupt(), failing.INTERRUPTED, "interrupted."),
        (PermissionError(13, "Permission denied", "/a/b"), failing.FAILED, "/a/b: Permission denied."),
        (OSError("odd"), failing.FAILED, "odd."),
        (ZeroDivisionError("oh"), failing.FAILED, "unexpected ZeroDivisionError: oh."),
    ],
)
def test_how_a_command_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    told: str,
) -> None:
    monkeypatch.delenv("LINESHAFT_DEBUG", raising=False)
    assert ending(monkeypatch, raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {told}")
    assert "Traceback" not in err


def test_where_an_unexpected_error_comes_from_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINESHAFT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        ending(monkeypatch, raising(ZeroDivisionError()))


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (4, 4), ("text", 0)])
def test_the_exit_code_of_a_command_that_ends(
    monkeypatch: pytest.MonkeyPatch, result: object, code: int
) -> None:
    assert ending(monkeypatch, lambda **_: result) == code


def test_a_reader_that_leaves_is_no_failure() -> None:
    """As `lineshaft … | head -1` has it."""
    code = """
import sys
from lineshaft.cli import entry

def talks(**_):
    for _ in range(100_000):
        print("x" * 100)

entry.app = talks
sys.exit(entry.run())
"""
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        assert os.read(read, 10) == b"x" * 10
        os.close(read)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 0
