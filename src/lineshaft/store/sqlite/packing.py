"""Rows go into a statement as one JSON parameter and come out as one JSON value.

The `sqlite3` module lets go of Python's global lock around every step of a statement and has to win it back
from the busy event loop each time, which can take a whole switch interval a row. So a statement takes one
step, whatever the number of rows: SQLite unpacks, joins and packs them without the global lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

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


def fetch(connection: sqlite3.Connection, statement: str, parameters: Sequence[Any] = ()) -> Any:
    """The one JSON value that a statement selects; None where it selects null."""
    text = connection.execute(statement, parameters).fetchone()[0]
    return None if text is None else pydantic_core.from_json(text, cache_strings="keys")
