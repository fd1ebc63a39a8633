"""The places of a page that are filled in: `<!-- begin: NAME -->` … `<!-- end: NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping

Rendered = Mapping[str, str | Mapping[str, str]]
"""What results are rendered to: path below docs/ → the whole text, or the texts of a page's sections by name."""


def fill(page: str, sections: Mapping[str, str]) -> str:
    """The page with its sections replaced. Raises LookupError for a section that it has no place for."""
    for name, text in sections.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        place = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
        filled = f"{begin}\n\n{text.strip()}\n\n{end}"
        page, found = place.subn(lambda _, filled=filled: filled, page)  # type: ignore[misc]
        if found != 1:
            raise LookupError(f"The page has {found} places {begin} … {end}; there must be one.")
    return page
