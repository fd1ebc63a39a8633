"""A package imports only from floors below it; the contracts stand in pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint_imports(folder: Path) -> tuple[bool, str]:
    """Whether the contracts of pyproject.toml hold for the package `lineshaft` under `folder`, and the report."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    options = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command + options,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


def house(folder: Path, **modules: str) -> Path:
    """A package `lineshaft` with the given modules (`engine__submit` is engine/submit.py) over an empty core."""
    for name, text in {"__init__": "", "core____init__": "", **modules}.items():
        path = folder.joinpath("lineshaft", *name.split("__", 1)).with_suffix(".py")
        if name == "__init__":
            path = folder / "lineshaft" / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return folder


def test_the_floors_hold() -> None:
    held, report = lint_imports(ROOT / "src")
    assert held, report


def test_imports_from_below_are_allowed(tmp_path: Path) -> None:
    held, report = lint_imports(
        house(
            tmp_path,
            core__errors="x = 1",
            store__port="from lineshaft.core.errors import x",
            engine__submit="from lineshaft.store import port\nfrom lineshaft.core.errors import x",
            testing__faults="import lineshaft.engine.submit, lineshaft.app",
            app="import lineshaft.http.api, lineshaft.engine.submit",
            http__api="import lineshaft.engine.submit",
        )
    )
    assert held, report


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        pytest.param(
            {"core__x": "import lineshaft.store.y", "store__y": ""},
            "lineshaft.core is not allowed to import lineshaft.store",
            id="from above",
        ),
        pytest.param(
            {"store__x": "def f():\n    from lineshaft.engine import y", "engine__y": ""},
            "lineshaft.store is not allowed to import lineshaft.engine",
            id="from above, late",
        ),
        pytest.param(
            {
                "engine__x": "from lineshaft import App",
                "__init__": "from lineshaft.app import App",
                "app": "App = 1",
            },
            "lineshaft.engine is not allowed to import lineshaft.app",
            id="from above, over the public names",
        ),
        pytest.param(
            {"cache__x": "import lineshaft.telemetry.y", "telemetry__y": ""},
            "lineshaft.cache is not allowed to import lineshaft.telemetry",
            id="from the same floor",
        ),
        pytest.param(
            {"cli__x": "import lineshaft.testing.y", "testing__y": ""},
            "lineshaft.cli is not allowed to import lineshaft.testing",
            id="from the test kit",
        ),
        pytest.param(
            {"attic__x": ""},
            "lineshaft.attic",
            id="a package on no floor",
        ),
        pytest.param(
            {"core__x": "import sqlite3"},
            "lineshaft.core is not allowed to import sqlite3",
            id="input and output in the core",
        ),
    ],
)
def test_a_broken_floor_is_found(tmp_path: Path, modules: dict[str, str], reason: str) -> None:
    held, report = lint_imports(house(tmp_path, **modules))
    assert not held
    assert reason in " ".join(report.split())
