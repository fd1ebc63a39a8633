"""The reference says what the code says: names, parameters, defaults, bounds, states."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
import typer

import lineshaft
from lineshaft.cli.entry import app as command_line
from lineshaft.core import bounds, errors
from lineshaft.core.states import FINAL, TRANSITIONS, State
from lineshaft.engine.declare import TaskOptions
from lineshaft.store.migrations import REVISIONS
from tests.docs.pages import ROOT, pages

REFERENCE = ROOT / "docs/reference"


def text_of(page: str) -> str:
    return (REFERENCE / page).read_text("utf-8")


def section(page: str, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if not line.startswith("|--") and not (lines[number + 1 : number + 2] or [""])[0].startswith("|--")
    ]


def named(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def parameters(function: Callable[..., Any]) -> set[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in found if parameter.kind not in kinds} - {"self", "items"}


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("App", parameters(lineshaft.App)),
        ("App", {name for name in vars(lineshaft.App) if not name.startswith("_")}),
        ("App.task", set(get_type_hints(TaskOptions))),
        ("App.worker", parameters(lineshaft.App.worker)),
        ("Concurrency", parameters(lineshaft.Concurrency)),
        ("Task", parameters(lineshaft.Task.submit)),
        ("Task", parameters(lineshaft.Task.submit_many)),
        ("Run", {name for name in vars(lineshaft.Run) if not name.startswith("_")}),
        ("Context", {name for name in vars(lineshaft.Context) if not name.startswith("_")}),
        ("Retry", parameters(lineshaft.Retry)),
        ("Limit, Rate", parameters(lineshaft.Limit) | parameters(lineshaft.Rate)),
        ("Failed", parameters(lineshaft.Failed)),
    ],
)
def test_a_section_names_every_parameter_and_member(heading: str, names: set[str]) -> None:
    body = section("public-surface.md", heading)
    missing = {name for name in names if not re.search(rf"[`( ]{name}\b", body)}
    assert not missing


def test_a_section_names_no_parameter_that_is_not_there() -> None:
    tables = {
        "App.task": set(get_type_hints(TaskOptions)),
        "App.worker": parameters(lineshaft.App.worker),
        "Concurrency": parameters(lineshaft.Concurrency),
        "Task": parameters(lineshaft.Task.submit),
        "Retry": parameters(lineshaft.Retry),
        "Limit, Rate": parameters(lineshaft.Limit) | parameters(lineshaft.Rate),
    }
    for heading, known in tables.items():
        listed = {name for row in rows(section("public-surface.md", heading)) for name in named(row[0])}
        assert listed <= known, heading


def test_every_public_name_has_its_place() -> None:
    text = text_of("public-surface.md")
    missing = {
        name for name in lineshaft.__all__ if not re.search(rf"(`|^## .*){name}\b", text, re.MULTILINE)
    }
    assert not missing


def test_errors_have_the_codes_that_the_reference_says() -> None:
    listed = {}
    for row in rows(section("public-surface.md", "Errors")):
        listed[row[0].strip("`")] = row[1].strip("`")
    public = {
        name: value.code
        for name, value in vars(lineshaft).items()
        if isinstance(value, type) and issubclass(value, errors.LineshaftError)
    }
    assert listed == public


def test_every_bound_is_listed_with_its_value() -> None:
    listed = {}
    for row in rows(section("settings-and-bounds.md", "Bounds")):
        listed[row[0].strip("`")] = float(row[1].replace(",", ""))
    assert listed == {name: float(value) for name, value in vars(bounds).items() if name.isupper()}


def test_the_states_and_their_transitions_are_those_of_the_table() -> None:
    listed = {row[0].strip("`"): named(row[2]) for row in rows(text_of("states.md"))}
    assert listed == {state.value: set(map(str, after)) for state, after in TRANSITIONS.items()}
    final = list(listed)[-len(FINAL) :]
    assert set(final) == {state.value for state in State if state in FINAL}


def test_the_tables_of_the_store_are_listed() -> None:
    assert REVISIONS == ("0001",), "look for new tables in the new revision too"
    created = (ROOT / "src/lineshaft/store/migrations/versions/r0001_durable_core.py").read_text("utf-8")
    tables = set(re.findall(r"CREATE TABLE (\w+)", created)) | {"lineshaft_schema_version"}
    listed = {name for row in rows(section("sqlite-store.md", "Tables")) for name in named(row[0])}
    assert listed == tables


def test_what_shows_a_guarantee_exists() -> None:
    text = text_of("guarantees.md")
    shown = re.findall(r"^Shown by:\n\n(.+?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(shown) == len(re.findall(r"^## ", text, re.MULTILINE))
    for line in shown:
        paths = re.findall(r"`((?:tests|src/lineshaft/testing)/[\w/.-]+)(?:::(\w+))?`", line)
        assert paths, f"nothing shows it: {line}"
        for path, test in paths:
            found = ROOT / path
            assert found.exists(), path
            assert not test or f"def {test}(" in found.read_text("utf-8"), f"{path}::{test}"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs/decisions"
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text("utf-8")))
    assert {page.name for page in folder.glob("0*.md")} == listed


def test_every_command_that_is_named_exists() -> None:
    tree: Any = typer.main.get_command(command_line)
    unknown = []
    for page in pages():
        for command, rest in re.findall(r"[`$] ?lineshaft ([a-z]+)((?: [^`\n]*)?)", page.read_text("utf-8")):
            group = tree.commands.get(command)
            second = rest.split()[:1]
            known = group is not None and (
                not second
                or not hasattr(group, "commands")
                or not second[0].isalpha()
                or second[0] in group.commands
            )
            if not known:
                unknown.append(f"{page.name}: lineshaft {command}{rest}")
    assert not unknown
