"""The page that says what is survived names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

from lineshaft.testing import conformance

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reference" / "failures.md").read_text("utf-8")
NAMED = re.findall(r"`(?:([\w/]+\.py)|(\w+)|…)(?:::|\.)(test_\w+)`", PAGE)


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 40
    file = ""
    for path, suite, test in NAMED:
        if suite:
            assert hasattr(getattr(conformance, suite), test), f"{suite}.{test}"
            continue
        file = path or file
        assert re.search(rf"def {test}\b", (TESTS / file).read_text("utf-8")), f"{file}::{test}"


def test_every_file_that_is_named_exists() -> None:
    for path in re.findall(r"`([\w/]+\.py)`", PAGE):
        assert (TESTS / path).is_file() or path.startswith("conformance"), path


def test_every_row_says_who_shows_it() -> None:
    rows = [
        line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| provoked by")
    ]
    assert len(rows) > 40
    for row in rows:
        shown_by = row.strip("| ").split(" | ")[2]
        assert "`" in shown_by, row
