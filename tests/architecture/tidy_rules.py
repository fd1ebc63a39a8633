"""The rules of tidiness that no linter has: each one reads a text and yields what it finds wrong.

`test_tidy.py` applies them to the tree and shows that each can fail. An exception is an entry in `ALLOWED`, with its
reason; an entry that nothing needs any more fails too.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

FILE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70

OWNERS: Final = {"src/lineshaft/core/clock.py", "src/lineshaft/core/ident.py"}
"""The clock owns time, sleep and the starting of asyncio tasks; ident owns randomness and ids."""

_POOL_CHILD: Final = "a pool child measures what one call cost, in a process that no simulation reaches"

ALLOWED: Final[dict[tuple[str, str], str]] = {
    ("src/lineshaft/data/compute/child.py", "time.perf_counter_ns"): _POOL_CHILD,
    ("src/lineshaft/data/compute/child.py", "time.process_time"): _POOL_CHILD,
}
"""(file, entry of `TIME_AND_CHANCE` or `PICKLES`) → why this file may use it. The other rules have no exceptions."""

TIME_AND_CHANCE: Final = (
    "asyncio.create_task",
    "asyncio.ensure_future",
    "asyncio.sleep",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "os.getrandom",
    "os.urandom",
    "random",
    "secrets",
    "time.clock_gettime",
    "time.clock_gettime_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.perf_counter_ns",
    "time.process_time",
    "time.process_time_ns",
    "time.sleep",
    "time.thread_time",
    "time.thread_time_ns",
    "time.time",
    "time.time_ns",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid.uuid6",
    "uuid.uuid7",
)
"""A name, or a module with everything in it, that only the owners may touch."""

PICKLES: Final = ("cloudpickle", "cPickle", "dill", "_pickle", "marshal", "pickle", "shelve")


@dataclass(frozen=True)
class Finding:
    """One thing wrong: where, what, and the name under which `ALLOWED` may list it."""

    path: str
    line: int
    text: str
    subject: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


Rule = Callable[[str, str], Iterator[Finding]]
"""A rule takes a path (from the root of the repository, with slashes) and the text of that file."""


# Size


def file_is_short(path: str, text: str) -> Iterator[Finding]:
    """One concept a file: no file needs more lines than the bound."""
    lines = len(text.splitlines())
    if lines > FILE_LINES_MAX:
        yield Finding(
            path, FILE_LINES_MAX, f"{lines} lines, more than {FILE_LINES_MAX}; it tells of two things"
        )


def functions_are_short(path: str, text: str) -> Iterator[Finding]:
    """No function needs more lines than the bound; its docstring and decorators are not counted."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = _length(node)
        if ast.get_docstring(node) is not None:
            lines -= _length(node.body[0])
        if lines > FUNCTION_LINES_MAX:
            yield Finding(path, node.lineno, f"{node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}")


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


# Time, chance and pickle


def time_and_chance_are_injected(path: str, text: str) -> Iterator[Finding]:
    """Time, sleep, tasks, randomness and ids come from their owners, so that a simulation can stand in."""
    if path in OWNERS:
        return
    for line, name in _names_used(text):
        if subject := _listed(name, TIME_AND_CHANCE):
            yield Finding(path, line, f"{name} is used; take it from core/clock.py or core/ident.py", subject)


def nothing_is_pickled(path: str, text: str) -> Iterator[Finding]:
    """What is stored is JSON: reading it back never runs code."""
    for line, name in _names_used(text):
        if subject := _listed(name, PICKLES):
            yield Finding(path, line, f"{name} is used; payloads go through core/codec.py", subject)


def _listed(name: str, names: tuple[str, ...]) -> str:
    """The entry that a name falls under, or nothing."""
    return next((each for each in names if name == each or name.startswith(f"{each}.")), "")


def _names_used(text: str) -> Iterator[tuple[int, str]]:
    """Every import, and every name that leads back to one, spelled out in full.

    After `from datetime import datetime as dt`, both the import and `dt.now` are found, the latter as
    `datetime.datetime.now`. Names reached over variables are not followed.
    """
    tree = ast.parse(text)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.lineno, f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = _dotted(node)
            if first in known:
                yield node.lineno, ".".join([known[first], *rest])


def _dotted(node: ast.expr) -> list[str]:
    """`a.b.c` as its parts; what is not a plain chain of names starts with an empty one."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    return [""]


# Words


def package_says_what_it_is(path: str, text: str) -> Iterator[Finding]:
    """A package's docstring tells a newcomer what it holds."""
    if path.endswith("/__init__.py") and not (ast.get_docstring(ast.parse(text)) or "").strip():
        yield Finding(path, 1, "this package has no docstring")


BARE: Final = re.compile(
    r"#\s*(type:\s*ignore(?!\[)|noqa(?!:\s*[A-Z])|(ruff|flake8):\s*noqa(?!:\s*[A-Z])|mypy:\s*ignore-errors)"
)


def exceptions_are_named(path: str, text: str) -> Iterator[Finding]:
    """`type: ignore` and `noqa` say which rule they silence."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and (found := BARE.search(token.string)):
            yield Finding(path, token.start[0], f"`{found[0]}` does not say which rule it silences")


# Addresses. The patterns are put together from halves, since this file is read by them too.

MACHINE_PATH: Final = re.compile(
    r"(?<![\w.:/~}-])(?:/(?:"
    + "home|Users|root|work|workspace|opt/[a-z]+|mnt|srv"
    + r")/[\w.-]+|[A-Z]:\\Users\\)"
)
PACKAGE_INDEX: Final = re.compile(
    "|".join(
        (
            "py" + r"pi\.org",
            "python" + r"hosted\.org",
            "--(?:extra-)?index" + "-url",
            "--find" + "-links",
            "--trusted" + "-host",
            "file:" + "///",
        )
    )
)


def no_machine_is_named(path: str, text: str) -> Iterator[Finding]:
    """A file that names a path of somebody's machine, or a package index, works nowhere else."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, what in ((MACHINE_PATH, "a path of one machine"), (PACKAGE_INDEX, "a package index")):
            if found := pattern.search(line):
                yield Finding(path, number, f"{found[0]!r} looks like {what}")


# What the rules are applied to

IN_SOURCE: Final[tuple[Rule, ...]] = (
    file_is_short,
    functions_are_short,
    time_and_chance_are_injected,
    nothing_is_pickled,
    package_says_what_it_is,
)
IN_ALL_PYTHON: Final[tuple[Rule, ...]] = (exceptions_are_named,)
IN_EVERY_FILE: Final[tuple[Rule, ...]] = (no_machine_is_named,)


def project_files() -> list[str]:
    """The files that git tracks or would track; without git, every file outside environments and caches."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        try:
            # A name need not be text.
            listed = os.fsdecode(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
        except (OSError, subprocess.CalledProcessError):
            pass  # no git on this machine, or somebody else's checkout: look for ourselves
        else:
            return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())
    return sorted(_walk(ROOT))


SKIPPED: Final = re.compile(
    r"\.git|\.venv.*|\..*_cache|\.hypothesis|\.bench.*|__pycache__|build|dist|htmlcov|.*\.egg-info"
)


def _walk(folder: Path) -> Iterator[str]:
    for entry in folder.iterdir():
        if SKIPPED.fullmatch(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry.relative_to(ROOT).as_posix()


def rules_for(path: str) -> Iterator[Rule]:
    """The rules that a file has to keep, by where it lies."""
    yield from IN_EVERY_FILE
    if path.endswith((".py", ".pyi")):
        yield from IN_ALL_PYTHON
        if path.startswith("src/"):
            yield from IN_SOURCE


def findings(path: str, text: str) -> Iterator[Finding]:
    """All that is wrong with one file, before exceptions."""
    for rule in rules_for(path):
        yield from rule(path, text)


def read(path: str) -> str | None:
    """The text of a file of the project, or None for one that is not text."""
    try:
        return (ROOT / path).read_text("utf-8")
    except UnicodeDecodeError:
        return None
