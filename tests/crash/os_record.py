"""The record of a scenario: what was done to the disk, and what was promised to whom, in the order of its happening.

Several processes append to it, each entry by one write. What a process *tells* in it is what a user could have seen
and acted on, so it has to stay true whatever befalls the machine afterwards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the record: something done to a file, or something that was told to somebody."""

    what: str
    """`open`, `write`, `truncate`, `sync`, `sync failed`, `delete`, `told`."""
    name: str = ""
    """Of the file; of `told`, the kind of news."""
    at: int = 0
    """Offset of a write, new size of a truncation; of `open`, whether it created the file."""
    data: bytes = b""


class Record:
    """A file of entries, to which several processes append."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, entry: Entry) -> None:
        head = json.dumps([entry.what, entry.name, entry.at, len(entry.data)]).encode()
        os.write(self._file, head + b"\n" + entry.data)


def entries(path: Path) -> Iterator[Entry]:
    """Read a record that nobody writes any more. A last entry that a kill cut off has not happened."""
    with path.open("rb") as file:
        while (head := file.readline()).endswith(b"\n"):
            what, name, at, size = json.loads(head)
            data = file.read(size)
            if len(data) < size:
                return
            yield Entry(what, name, at, data)


def told(path: Path, what: str) -> Iterator[list[Any]]:
    """What was told of one kind, in order."""
    for entry in entries(path):
        if entry.what == "told" and entry.name == what:
            yield json.loads(entry.data)


def tell(what: str, *facts: Any) -> None:
    """Something leaves this process; the record is the one named in the environment."""
    _own().add(Entry("told", what, 0, json.dumps(facts).encode()))


@cache
def _own() -> Record:
    return Record(Path(os.environ["OS_RECORD"]))
