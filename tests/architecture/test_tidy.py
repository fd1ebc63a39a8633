"""The tree keeps the rules of `tidy_rules.py`, and each rule is shown to fail on what it forbids."""

from __future__ import annotations

import pytest

from tests.architecture import tidy_rules as tidy

FILES = tidy.project_files()
SOURCE = "src/lineshaft/engine/part.py"


def all_findings() -> list[tidy.Finding]:
    texts = ((path, tidy.read(path)) for path in FILES)
    return [found for path, text in texts if text is not None for found in tidy.findings(path, text)]


def test_the_tree_is_tidy() -> None:
    wrong = [found for found in all_findings() if (found.path, found.subject) not in tidy.ALLOWED]
    assert not wrong, "\n" + "\n".join(map(str, wrong))


def test_the_files_were_found() -> None:
    assert {"pyproject.toml", "Makefile", "src/lineshaft/__init__.py"} <= set(FILES)
    assert not any(path.startswith((".venv", ".git/")) for path in FILES)


def test_the_files_are_found_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").touch()
    (tmp_path / ".venv-3.12").mkdir()
    (tmp_path / ".venv-3.12" / "b.py").touch()
    monkeypatch.setattr(tidy, "ROOT", tmp_path)
    assert tidy.project_files() == ["src/a.py"]


def test_every_exception_has_a_reason_and_is_needed() -> None:
    needed = {(found.path, found.subject) for found in all_findings()}
    assert all(reason.strip() for reason in tidy.ALLOWED.values())
    assert not set(tidy.ALLOWED) - needed, "these exceptions are no longer needed; take them out"


def lines(count: int) -> str:
    return "x = 1\n" * count


def function(body_lines: int, docstring_lines: int = 0) -> str:
    docstring = '    """' + "Words.\n" * docstring_lines + '    """\n' if docstring_lines else ""
    return "async def f():\n" + docstring + "    x = 1\n" * body_lines


BAD = [
    (tidy.file_is_short, lines(501)),
    (tidy.functions_are_short, function(70)),
    (tidy.functions_are_short, "class A:\n" + "".join(f"    {line}\n" for line in function(70).splitlines())),
    *(
        (tidy.time_and_chance_are_injected, text)
        for text in (
            "import time\ntime.time()",
            "import time as t\nt.monotonic()",
            "from time import monotonic_ns as now",
            "import time\nclock = time.perf_counter",
            "import time\ntime.sleep(1)",
            "import datetime\ndatetime.datetime.now(datetime.UTC)",
            "from datetime import datetime\ndatetime.utcnow()",
            "import datetime as d\nd.date.today()",
            "import random",
            "from random import Random",
            "import numpy, secrets",
            "import os\nos.urandom(8)",
            "from os import urandom",
            "import uuid\nuuid.uuid4()",
            "from uuid import uuid1",
            "import asyncio\nasync def f():\n    await asyncio.sleep(1)",
            "from asyncio import create_task",
            "import asyncio\nasyncio.ensure_future(f())",
            "def late():\n    import time\n    return time.time_ns()",
        )
    ),
    (tidy.nothing_is_pickled, "import pickle"),
    (tidy.nothing_is_pickled, "def f():\n    from pickle import loads"),
    (tidy.nothing_is_pickled, "import cloudpickle as cp"),
    (tidy.exceptions_are_named, "x = 1  # type: " + "ignore"),
    (tidy.exceptions_are_named, "x = 1  # no" + "qa"),
    (tidy.exceptions_are_named, "# ruff: no" + "qa\nx = 1"),
    (tidy.exceptions_are_named, "# my" + "py: ignore-errors\nx = 1"),
    (tidy.no_machine_is_named, "cd /ho" + "me/ada/lineshaft"),
    (tidy.no_machine_is_named, 'path = "/wo' + 'rk/main"'),
    (tidy.no_machine_is_named, "--find" + "-links wheels"),
    (tidy.no_machine_is_named, "https://py" + "pi.org/simple"),
]

GOOD = [
    (tidy.file_is_short, lines(500)),
    (tidy.functions_are_short, function(69)),
    (tidy.functions_are_short, function(60, docstring_lines=40)),
    (
        tidy.time_and_chance_are_injected,
        "from datetime import datetime, timedelta\nx = datetime.fromtimestamp",
    ),
    (tidy.time_and_chance_are_injected, "from uuid import UUID\nimport asyncio\nasyncio.timeout(1)"),
    (tidy.time_and_chance_are_injected, "def f(clock):\n    return clock.time.time() + clock.random"),
    (tidy.nothing_is_pickled, "import json\ntext = 'import pickle'"),
    (tidy.exceptions_are_named, "x = 1  # type: ignore[attr-defined]  # noqa: E741\ny = '# noqa'"),
    (tidy.no_machine_is_named, "https://example.com/home/page, ./work/x, ~/work/x, /usr/bin/env, /tmp/x"),
]


@pytest.mark.parametrize(("rule", "text"), BAD)
def test_what_a_rule_forbids_is_found(rule: tidy.Rule, text: str) -> None:
    assert list(rule(SOURCE, text))
    assert rule in tidy.rules_for(SOURCE)


@pytest.mark.parametrize(("rule", "text"), GOOD)
def test_what_a_rule_allows_is_left_alone(rule: tidy.Rule, text: str) -> None:
    assert not list(rule(SOURCE, text))


def test_a_package_without_a_docstring_is_found() -> None:
    path = "src/lineshaft/engine/__init__.py"
    assert list(tidy.package_says_what_it_is(path, "x = 1"))
    assert list(tidy.package_says_what_it_is(path, '"""  """'))
    assert not list(tidy.package_says_what_it_is(path, '"""The engine."""'))
    assert tidy.package_says_what_it_is in tidy.rules_for(path)


def test_the_owners_may_use_what_they_own() -> None:
    for path in tidy.OWNERS:
        assert not list(tidy.time_and_chance_are_injected(path, "import time\ntime.time()"))


def test_rules_of_the_source_do_not_bind_tests_and_examples() -> None:
    assert not list(tidy.findings("tests/unit/test_x.py", "import random, time\ntime.sleep(1)"))
    assert list(tidy.findings("examples/x.py", "x = 1  # no" + "qa"))


def test_every_rule_is_shown_to_fail() -> None:
    shown = {rule for rule, _ in BAD} | {tidy.package_says_what_it_is}
    assert shown == {*tidy.IN_SOURCE, *tidy.IN_ALL_PYTHON, *tidy.IN_EVERY_FILE}


def test_a_finding_says_where_and_what() -> None:
    [found] = tidy.time_and_chance_are_injected(SOURCE, "import time\n\ntime.sleep(1)")
    assert str(found) == f"{SOURCE}:3: time.sleep is used; take it from core/clock.py or core/ident.py"
