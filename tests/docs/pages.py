"""What the pages of the documentation hold: fenced blocks, and how each of them is tried.

    ```python                           executed in the page's namespace, top to bottom; may await
    ```python title="app.py"            written to that file beside the page, and imported
    ```console                          every line after "$ " is executed; the others must be in its output
    ```text, ini                        shown only: output, or the file of another program
    <!-- python … -->                   executed like a block, but not shown
    <!-- not executed: REASON -->       before a block that cannot be tried here, with one of REASONS

In expected output `…` stands for anything, on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TRIED: Final = frozenset({"python", "console"})
SHOWN: Final = frozenset({"text", "ini"})

REASONS: Final = {
    "it installs packages": r"pip install",
    "it needs root": r"sudo|systemctl",
    "it takes minutes": r"make (run|test|bench|campaign|coverage|flights-kills|mutation|soak)",
    "it is a sketch of what comes": r"# comes later",
}
"""Why a block may stay untried, and what must then be found in it."""

_FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\s*$")
_MARK = re.compile(r"^<!-- not executed: (.+?) -->\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, or hidden Python."""

    page: Path
    line: int
    """Of its first line of content, counted from 1."""
    language: str
    title: str
    text: str
    not_executed: str
    hidden: bool = False

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """The README and everything in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order. Raises ValueError for a fence that is never closed."""
    return list(_blocks(page, page.read_text("utf-8").splitlines()))


def _blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    number = 0
    reason = ""
    while number < len(lines):
        line = lines[number]
        number += 1
        fence = _FENCE.match(line)
        if mark := _MARK.match(line):
            reason = mark[1]
            continue
        if line.strip() == "<!-- python":
            end = _end(lines, number, "-->", page)
            yield Block(page, number + 1, "python", "", "\n".join(lines[number:end]), "", hidden=True)
            number = end + 1
        elif fence:
            end = _end(lines, number, "```", page)
            text = "\n".join(lines[number:end])
            yield Block(page, number + 1, fence[1], fence[2] or "", text, reason)
            number = end + 1
        if line.strip():
            reason = ""


def _end(lines: list[str], start: int, mark: str, page: Path) -> int:
    for number in range(start, len(lines)):
        if lines[number].rstrip() == mark:
            return number
    raise ValueError(f"{page}:{start}: the block that begins here does not end.")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block, and the output that the page shows for it."""

    text: str
    output: tuple[str, ...]


def commands(block: Block) -> list[Command]:
    """The commands of a console block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            command, output = found[-1]
            found[-1] = (f"{command}\n{line[2:]}", output)
        elif line.strip():
            if not found:
                raise ValueError(f"{block.where}: a console block begins with a command, after '$ '.")
            found[-1][1].append(line)
    return [Command(text, tuple(output)) for text, output in found]


def missing_output(expected: tuple[str, ...], output: str) -> list[str]:
    """Lines that the page shows and the command did not print; `…` stands for anything."""
    printed = [_squeezed(line) for line in output.splitlines()]
    return [line for line in expected if not any(_pattern(line).search(found) for found in printed)]


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part.strip()) for part in _squeezed(line).split("…")))


def _squeezed(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()
