"""Rows go into a statement as one JSON parameter and come out as one JSON value.

The `sqlite3` module lets go of Python's global lock around every step of a statement and has to win it back
from the busy event loop each time, which can take a whole switch interval a row. So a statement takes one
step, whatever the number of rows: SQLite unpacks, joins and packs them without the global lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import pydantic_core


def pack(rows: Sequence[Any]) -> str:
    """Rows as the text that `json_each(?)` unpacks."""
    return pydantic_core.to_json(rows).decode()


def fetch(connection: sqlite3.Connection, statement: str, parameters: Sequence[Any] = ()) -> Any:
    """The one JSON value that a statement selects; None where it selects null."""
    text = connection.execute(statement, parameters).fetchone()[0]
    return None if text is None else pydantic_core.from_json(text, cache_strings="keys")
