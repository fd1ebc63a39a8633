from __future__ import annotations

import pytest

from benchmarks.measurement import Summary
from benchmarks.report import numbers
from benchmarks.report.pages import DOCS, rendered
from benchmarks.report.sections import fill

PAGE = "# Page\n\n<!-- begin: speed -->\nold\n<!-- end: speed -->\n\nThe rest.\n"


def test_a_section_is_replaced_and_nothing_else() -> None:
    filled = fill(PAGE, {"speed": "| a |\n"})
    assert filled == "# Page\n\n<!-- begin: speed -->\n\n| a |\n\n<!-- end: speed -->\n\nThe rest.\n"
    assert fill(filled, {"speed": "| a |"}) == filled


def test_backslashes_in_a_section_stay() -> None:
    assert r"\1 \g<0>" in fill(PAGE, {"speed": r"\1 \g<0>"})


@pytest.mark.parametrize("page", ["no place", PAGE + PAGE])
def test_a_section_has_exactly_one_place(page: str) -> None:
    with pytest.raises(LookupError, match="speed"):
        fill(page, {"speed": "text"})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.254, "0.25"), (8.561, "8.56"), (26.53, "26.5"), (265.4, "265"), (1234.5, "1,230"),
     (17_438, "17,400"), (1_234_567, "1,230,000")],
)  # fmt: skip
def test_numbers_have_the_digits_that_mean_something(value: float, text: str) -> None:
    assert numbers.number(value) == text


def test_what_was_not_found_shows_as_a_dash() -> None:
    assert numbers.median(None) == numbers.spread(None) == numbers.times(None) == "–"
    assert numbers.both(Summary(2.0, 1.0, 3.0, 3)) == "2.00 (1.00 – 3.00)"


def test_the_documentation_shows_what_was_measured() -> None:
    """Where this fails: `python -m benchmarks.report`."""
    for path, text in rendered().items():
        assert path.read_text("utf-8") == text, f"{path.relative_to(DOCS.parent)} is not what was measured"
