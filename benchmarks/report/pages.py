"""Which results fill which sections of which files.

A module of this package that renders a document of results has a function `files(results)` that gives, for each
file of the documentation, either a whole text (a chart) or the sections of a page by their names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.measurement import RESULTS, Results
from benchmarks.report import engine, peers
from benchmarks.report.sections import Rendered, fill

DOCS: Final = Path(__file__).parents[2] / "docs"

RENDERERS: Final[dict[str, Callable[[Results], Rendered]]] = {"engine": engine.files, "peers": peers.files}
"""Name of a document in benchmarks/results → what renders it."""


def rendered() -> dict[Path, str]:
    """Every file of the documentation that shows figures, as the results would have it."""
    texts: dict[Path, str] = {}
    for name, render in RENDERERS.items():
        document = RESULTS / f"{name}.json"
        if not document.exists():
            continue
        for below, content in render(Results.read(document)).items():
            path = DOCS / below
            if isinstance(content, str):
                texts[path] = content
            else:
                texts[path] = fill(texts.get(path) or path.read_text("utf-8"), content)
    return texts
