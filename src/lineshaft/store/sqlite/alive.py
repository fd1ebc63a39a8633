"""Knowing at once that a worker's process has died.

Each worker keeps a lock on one byte of a file beside the database, the byte of its own number. The kernel lets
the lock go when the process ends, however it ends; so a worker whose byte is free is dead before its lease has
run out, and one whose byte is held may still be stalled, which is what leases are for.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

# POSIX locks belong to the process and go when any descriptor of the file is closed, so a process keeps one
# descriptor a file, for good (that of a file which was deleted too: workers on it may be about to end).
_descriptors: dict[str, int] = {}
_own: set[tuple[str, int]] = set()
_lock = threading.Lock()


class Alive:
    """The locks of the workers on one store."""

    def __init__(self, path: Path) -> None:
        self._name = os.path.realpath(f"{path}-alive")

    def take(self, worker: int) -> bool:
        """Show that this worker lives, until `drop` or the end of the process.

        False if another process has that byte: its own registration under this number was rolled back.
        """
        with _lock:
            try:
                fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, worker)
            except OSError:
                return False
            _own.add((self._name, worker))
            return True

    def drop(self, worker: int) -> None:
        with _lock:
            if (self._name, worker) in _own:
                _own.discard((self._name, worker))
                fcntl.lockf(self._descriptor(), fcntl.LOCK_UN, 1, worker)

    def is_dead(self, worker: int) -> bool:
        """Whether the process of this worker is gone for certain."""
        with _lock:
            if (self._name, worker) in _own:
                return False
            try:
                fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, worker)
            except OSError:
                return False
            fcntl.lockf(self._descriptor(), fcntl.LOCK_UN, 1, worker)
            return True

    def _descriptor(self) -> int:
        found = _descriptors.get(self._name)
        if found is None or not _is_still(found, self._name):
            found = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _descriptors[self._name] = found
            self._take_again(found)
        return found

    def _take_again(self, descriptor: int) -> None:
        """Show on a file that was made anew which workers of this process live."""
        for name, worker in [each for each in _own if each[0] == self._name]:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, worker)
            except OSError:
                # A worker of another process has this number in the store that was made anew.
                _own.discard((name, worker))


def _is_still(descriptor: int, name: str) -> bool:
    """Whether the file under this name is the one that was opened, not one made since."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name))
    except FileNotFoundError:
        return False
