"""What the tests of query plans stand on: the statements in the code, a connection that explains them, a large store."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lineshaft

SOURCE = Path(inspect.getfile(lineshaft)).parent

# ---------------------------------------------------------------------------- statements in the code

_IS_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\s")


@dataclass(frozen=True)
class Statement:
    """A statement in the source, and the pattern of what it may be when the program runs."""

    where: str
    pattern: str

    def fits(self, text: str) -> bool:
        pattern = self.pattern.replace(re.escape("{values}"), ".*")
        return re.fullmatch(pattern, text, re.DOTALL) is not None


def statements() -> list[Statement]:
    """Every statement in the source: those written in it, and those that its modules made of others when imported."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        path = str(file.relative_to(SOURCE))
        written = list(statements_in(file.read_text(), path))
        if written:
            module = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts)
            found += written
            found += [
                Statement(f"{path}:{name}", re.escape(value))
                for name, value in vars(importlib.import_module(module)).items()
                if isinstance(value, str) and _IS_STATEMENT.match(value)
            ]
    return found


def statements_in(text: str, path: str) -> Iterator[Statement]:
    for line, parts in _strings(ast.parse(text)):
        if parts[0] is not None and _IS_STATEMENT.match(parts[0]):
            pattern = "".join(".*" if part is None else re.escape(part) for part in parts)
            yield Statement(f"{path}:{line}", pattern)


def _strings(tree: ast.AST) -> Iterator[tuple[int, list[str | None]]]:
    """String literals in parts; None stands for what is put in when the program runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                [each.value if isinstance(each, ast.Constant) else None for each in node.values],
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, [node.value]
        else:
            yield from _strings(node)


# ------------------------------------------------------------------------- how SQLite carries them out

GROWING = {
    f"lineshaft_{name}" for name in ("run", "run_history", "key", "attempt", "payload", "progress", "lane")
}
"""Tables that grow with the work; the others have a row for a worker, a process, a limit in use."""


@dataclass
class Plan:
    """One statement, and the steps by which it is carried out."""

    statement: str
    steps: list[str]

    def scans(self) -> list[str]:
        """Steps that read all of a growing table, or of an index over it."""
        tables = dict(re.findall(r"(lineshaft_\w+)(?:\s+AS\s+(\w+))?", self.statement))
        names = GROWING | {alias for table, alias in tables.items() if table in GROWING}
        aliases = re.findall(r"(lineshaft_\w+)\s+AS\s+(\w+)", self.statement)
        names |= {alias for table, alias in aliases if table in GROWING}
        return [step for step in self.steps if re.sub(r"SCAN (\S+).*", r"\1", step) in names]

    def sorts(self) -> list[str]:
        return [step for step in self.steps if "TEMP B-TREE" in step]

    def __str__(self) -> str:
        return "\n".join([self.statement.strip(), *(f"    {step}" for step in self.steps)])


class Recording(sqlite3.Connection):
    """A connection that keeps the plan of every statement it executes, and counts the steps of SQLite's machine."""

    plans: dict[str, Plan]
    steps: int

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self._explain(statement, parameters)
        return super().execute(statement, parameters)

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        rows = list(parameters)
        self._explain(statement, rows[0])
        return super().executemany(statement, rows)

    def _explain(self, statement: str, parameters: Any) -> None:
        if _IS_STATEMENT.match(statement) and statement not in self.plans:
            explained = super().execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            self.plans[statement] = Plan(statement, [row[3] for row in explained])

    def explained(self, use: Callable[[sqlite3.Connection], Any]) -> list[Plan]:
        """The plans of what a use of the store executes; what it changed is rolled back."""
        self.plans = {}
        self._rolled_back(use)
        assert self.plans, "nothing was executed"
        return list(self.plans.values())

    def counted(self, use: Callable[[sqlite3.Connection], Any]) -> int:
        """How many steps a use of the store takes, to the nearest ten of each statement."""
        self._rolled_back(use)  # so that all of it is explained before
        self.steps = 0
        self.set_progress_handler(self._count, 10)
        self._rolled_back(use)
        self.set_progress_handler(None, 10)
        return self.steps

    def _count(self) -> int:
        self.steps += 10
        return 0

    def _rolled_back(self, use: Callable[[sqlite3.Connection], Any]) -> None:
        self.execute("BEGIN")
        try:
            use(self)
        finally:
            self.execute("ROLLBACK")


def connect(path: Path) -> Recording:
    connection = sqlite3.connect(path, isolation_level=None, factory=Recording)
    connection.plans = {}
    return connection


# ---------------------------------------------------------------------------------------- growing a store

_OTHER = {
    # The last of an id's digits are of chance, and far apart.
    **dict.fromkeys(
        ("id", "run_id", "first_id", "retry_of"), "substr({0}, 1, 32) || printf('x%03d', copy.value)"
    ),
    **dict.fromkeys(("key", "tenant"), "{0} || '-' || copy.value"),
    "lineshaft_lane.id": "{0} + copy.value * 4294967296",
}
"""What is different in a copy of a row."""


def grow(connection: sqlite3.Connection, times: int) -> None:
    """Copy all rows of the tables that grow, except what executes and is suspect, under other ids and keys."""
    connection.execute("BEGIN")
    for table in sorted(GROWING):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        others = [_OTHER.get(f"{table}.{column}") or _OTHER.get(column, "{0}") for column in columns]
        resting = "WHERE state <> 'running' AND suspect IS NULL" if table == "lineshaft_run" else ""
        connection.execute(
            f"WITH RECURSIVE copy (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM copy LIMIT ?)"
            f" INSERT INTO {table} ({', '.join(columns)})"
            f" SELECT {', '.join(map(str.format, others, columns))} FROM {table} CROSS JOIN copy {resting}",
            (times - 1,),
        )
    connection.execute("COMMIT")
