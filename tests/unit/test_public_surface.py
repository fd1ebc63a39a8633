"""What users import: these names and no others, documented, typed, and light to import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mypy import api

import lineshaft
from lineshaft.core import errors

ROOT = Path(__file__).parents[2]
NAMES = {
    "App", "AsyncTransaction", "Concurrency", "Context", "Failed", "Limit", "Progress", "Rate", "Retry", "Run",
    "State", "Task", "Transaction",
    "DeclarationError", "InvalidArguments", "InvalidSetting", "KeyReused", "LineshaftError", "NotEncodable",
    "Overloaded", "PayloadTooLarge", "ResultTimeout", "RunCancelled", "RunCrashed", "RunFailed", "RunFailure", "RunNotFound",
    "RunOutcomeUnknown", "RunTimedOut", "StoreError", "StoreFull", "StoreUnavailable", "TransactionRefused",
    "TransactionTooLong",
}  # fmt: skip
SURFACE = {
    lineshaft.App: {
        "close", "connect", "engine", "name", "queue", "run", "store_address", "task", "transaction", "worker",
    },
    lineshaft.Task: {"blocking", "name", "run", "submit", "submit_many"},
    lineshaft.Run: {"blocking", "cancel", "progress", "result", "status", "view"},
    lineshaft.Context: {"heartbeat", "logger", "progress"},
    lineshaft.Transaction: {"session"},
    lineshaft.AsyncTransaction: {"session"},
}  # fmt: skip
HEAVY = {"alembic", "dask", "http.server", "psutil", "rich", "sqlalchemy", "typer", "uvloop"}


def test_exactly_these_names_are_exported() -> None:
    assert set(lineshaft.__all__) == NAMES
    assert all(hasattr(lineshaft, name) for name in NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(lineshaft, name))


@pytest.mark.parametrize("kind", SURFACE, ids=lambda kind: kind.__name__)
def test_what_the_design_promises_is_there_and_documented(kind: Any) -> None:
    for name in SURFACE[kind]:
        member = inspect.getattr_static(kind, name, None)
        assert member is not None or name == "name", f"{kind.__name__}.{name}"
    for name, member in inspect.getmembers_static(kind, inspect.isfunction):
        if not name.startswith("_") and name in SURFACE[kind]:
            assert inspect.getdoc(member) or kind is not lineshaft.App, f"{kind.__name__}.{name}"


def test_every_error_has_a_code_of_its_own_and_survives_a_copy() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, lineshaft.LineshaftError)
    ]
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        error = kind("what", hint="do this")
        assert str(error) == "what do this"
        assert kind.__name__ in (errors.__doc__ or "")


def test_importing_is_light() -> None:
    script = "import sys, lineshaft; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert HEAVY.isdisjoint(done.stdout.split())


def test_a_type_checker_sees_the_surface_as_meant() -> None:
    report, problems, status = api.run(["--no-error-summary", str(ROOT / "tests/typing/surface.py")])
    assert (status, problems) == (0, ""), report
