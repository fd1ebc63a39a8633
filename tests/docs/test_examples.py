"""Every example in the documentation is tried, and none is left out in silence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import REASONS, ROOT, SHOWN, TRIED, Block, blocks, commands, missing_output, pages
from tests.support import STRICT

README = ROOT / "README.md"
PAGES = pages()
ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def to_execute(page: Path) -> list[Block]:
    return [
        block
        for block in blocks(page)
        if block.language in TRIED and not block.not_executed and not block.hidden
    ]


# The quickstart needs several terminals and has a test of its own.
ELSEWHERE = {
    README: "## Quickstart",
    ROOT / "docs/decisions/0005-encoder.md": "where msgspec and orjson are installed",
}
"""Pages whose blocks this test does not execute, and what in the page says why."""

EXECUTED = [page for page in PAGES if page not in ELSEWHERE and to_execute(page)]


@pytest.mark.parametrize("page", EXECUTED, ids=name)
def test_the_examples_of_a_page_work(page: Path, tmp_path: Path) -> None:
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("LINESHAFT_")},
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "COLUMNS": "160",
    }
    done = subprocess.run(
        [*STRICT, "-m", "tests.docs.notebook", str(page)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"executed {len(to_execute(page))} blocks" in done.stdout, done.stdout


def test_the_pages_were_found() -> None:
    assert README in PAGES
    assert len(EXECUTED) > 10


@pytest.mark.parametrize("block", [block for block in ALL_BLOCKS if not block.hidden], ids=lambda b: b.where)
def test_a_block_is_tried_or_says_why_not(block: Block) -> None:
    assert block.language in TRIED | SHOWN, f"{block.where}: a block of {block.language or 'no language'}"
    if block.not_executed:
        assert block.not_executed in REASONS, f"{block.where}: {block.not_executed!r} is no reason we know"
        assert re.search(REASONS[block.not_executed], block.text), f"{block.where}: the reason does not fit"


def test_a_page_that_is_left_out_says_why() -> None:
    for page, reason in ELSEWHERE.items():
        assert reason in page.read_text("utf-8"), name(page)


def test_the_readme_has_nothing_to_try_but_its_quickstart() -> None:
    lines = README.read_text("utf-8").splitlines()
    first = lines.index("## Quickstart")
    last = next(number for number in range(first + 1, len(lines)) if lines[number].startswith("## "))
    outside = [block for block in to_execute(README) if not first < block.line <= last]
    assert not outside


def test_links_lead_somewhere() -> None:
    dead = []
    for page in PAGES:
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            found = (page.parent / path) if path else page
            if not found.exists():
                dead.append(f"{name(page)}: {target}")
            elif anchor and anchor not in anchors(found):
                dead.append(f"{name(page)}: {target} (no such heading)")
    assert not dead


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.exists():
            continue
        reached.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text("utf-8"))
        waiting += [(page.parent / target).resolve() for target in targets if not target.startswith("http")]
    assert not {name(page) for page in PAGES} - {name(page) for page in reached}


# The extractor itself


def page_of(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(text)
    return page


def test_blocks_are_found(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        'one\n```python\na = 1\n```\n<!-- python\nassert a\n-->\n```python title="app.py"\nb = 2\n```\n'
        "<!-- not executed: it needs root -->\n\n```console\n$ sudo ls\n```\n```text\nx\n```\n",
    )
    found = [(b.language, b.title, b.text, b.not_executed, b.hidden, b.line) for b in blocks(page)]
    assert found == [
        ("python", "", "a = 1", "", False, 3),
        ("python", "", "assert a", "", True, 6),
        ("python", "app.py", "b = 2", "", False, 9),
        ("console", "", "$ sudo ls", "it needs root", False, 14),
        ("text", "", "x", "", False, 17),
    ]


def test_a_mark_holds_for_the_next_block_only(tmp_path: Path) -> None:
    page = page_of(tmp_path, "<!-- not executed: it needs root -->\nText.\n```console\n$ ls\n```\n")
    assert blocks(page)[0].not_executed == ""


def test_an_open_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not end"):
        blocks(page_of(tmp_path, "```python\na = 1\n"))


def test_commands_and_their_output(tmp_path: Path) -> None:
    page = page_of(tmp_path, "```console\n$ one \\\n> two\nout … put\n\n$ three\n```\n")
    found = commands(blocks(page)[0])
    assert [(command.text, command.output) for command in found] == [
        ("one \\\ntwo", ("out … put",)),
        ("three", ()),
    ]
    assert missing_output(("out … put",), "x\nout 12  put\n") == []
    assert missing_output(("out … put", "more"), "out\nput\n") == ["out … put", "more"]
