"""Rows go into a statement all at once and come out as one JSON value.

The `sqlite3` module lets go of Python's global lock around every step of a statement and has to win it back
from the busy event loop each time, which can take a whole switch interval a row. So a statement takes one
step, whatever the number of rows: SQLite unpacks, joins and packs them without the global lock.

Rows go in as one JSON parameter, or, where there are many columns, as a VALUES clause: picking eleven columns
out of JSON costs more than twice as much as binding them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final

import pydantic_core

from lineshaft.core import bounds

PAYLOADS_AT_ONCE = bounds.CLAIM_BYTES_MAX // bounds.PAYLOAD_BYTES_MAX
"""So many payloads go through one JSON value, which SQLite bounds at 1,000,000,000 bytes."""


def pack(rows: Sequence[Any]) -> str:
    """Rows as the text that `json_each(?)` unpacks."""
    return pydantic_core.to_json(rows).decode()


def packed_in_parts(rows: Sequence[Any]) -> Iterator[str]:
    """The same for rows with a payload in each, however many there are."""
    for start in range(0, len(rows), PAYLOADS_AT_ONCE):
        yield pack(rows[start : start + PAYLOADS_AT_ONCE])


VALUES_ROWS_MAX: Final = 256


def execute_values(connection: sqlite3.Connection, template: str, rows: Iterable[tuple[Any, ...]]) -> int:
    """Execute a statement whose `{values}` stands for rows, in few steps; how many rows it changed.

    It must pass over rows of nulls, and not begin with WITH: such a statement tells no count.
    """
    return sum(connection.execute(text, values).rowcount for text, values in _filled(template, rows))


def fetch_values(connection: sqlite3.Connection, template: str, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The items of the JSON arrays that such a statement selects."""
    return [item for text, values in _filled(template, rows) for item in fetch(connection, text, values)]


def _filled(template: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    """The statement for so many rows at a time, filled up with nulls to a power of two: few are to be prepared."""
    # Rows made one after another, and gone with their step, are no work for the garbage collector.
    left = iter(rows)
    while part := list(islice(left, VALUES_ROWS_MAX)):
        width, length = len(part[0]), 1 << (len(part) - 1).bit_length()
        values = list(chain.from_iterable(part))
        values += [None] * (width * (length - len(part)))
        yield _with_values(template, length, width), values


@lru_cache(maxsize=256)
def _with_values(template: str, length: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return template.format(values=f"VALUES {', '.join([row] * length)}")


def fetch(connection: sqlite3.Connection, statement: str, parameters: Sequence[Any] = ()) -> Any:
    """The one JSON value that a statement selects; None where it selects null."""
    text = connection.execute(statement, parameters).fetchone()[0]
    return None if text is None else pydantic_core.from_json(text, cache_strings="keys")
