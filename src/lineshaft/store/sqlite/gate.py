"""The write gate: the processes on one file write in turn.

SQLite's own lock is not fair: a busy writer that commits and begins again starves the others, which sleep and
poll. Two advisory file locks make a turnstile. Whoever wants to write takes the turn lock, then the gate lock,
then lets the turn go; so a waiter holds the turn while it waits for the gate, and the writer that left the
gate cannot come back before it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Gate:
    """Entered by the writer thread of each process around every write transaction and checkpoint."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._gate = os.open(f"{path}-gate", flags, 0o600)
        try:
            self._turn = os.open(f"{path}-turn", flags, 0o600)
        except BaseException:
            os.close(self._gate)
            raise

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Hold the gate."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._gate, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._gate)
        os.close(self._turn)
