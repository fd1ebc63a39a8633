"""A disk that forgets what was not synced: from a record, the files as they can be after the power failed.

What a file system promises is little (https://danluu.com/file-consistency/), and it is all that is granted here: a
write survives for certain only if its file was synced after it. Any other may survive, be lost, or survive in part,
sector by sector, each for itself and in any order. A new name, or one that was deleted, is certain only once the
directory was synced; SQLite does that with the first sync of a journal or log that it has opened, which
`test_os_strace.py` shows. After a sync that failed some systems still have what it should have written, and write
it with the next one. Others take it for written: the next sync succeeds without it
(https://wiki.postgresql.org/wiki/Fsync_Errors); those are `treacherous`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.crash.os_record import Entry

SECTOR_BYTES = 512


@dataclass(slots=True)
class _Inode:
    """A file, whatever its name."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Entry] = field(default_factory=list)
    """What was done to it since the last sync."""


class ForgetfulDisk:
    """Follows a record; may lose power at any time, as often as one likes."""

    def __init__(self, chance: random.Random, *, treacherous: bool = False) -> None:
        self._treacherous = treacherous
        self._chance = chance
        self._names: dict[str, _Inode] = {}
        """As programs see them."""
        self._durable_names: dict[str, _Inode] = {}
        self._pending_names: list[dict[str, _Inode]] = []
        """The directory after each change since its last sync."""
        self._syncs_directory: set[str] = set()
        """Files whose next sync is one of the directory too."""

    def follow(self, entry: Entry) -> None:
        """Do what an entry of the record says."""
        match entry.what:
            case "open":
                if entry.name not in self._names:
                    self._rename({**self._names, entry.name: _Inode()})
                if entry.name.endswith(("-wal", "-journal")):
                    self._syncs_directory.add(entry.name)
            case "write" | "truncate":
                self._names[entry.name].pending.append(entry)
            case "sync":
                inode = self._names[entry.name]
                for done in inode.pending:
                    _apply(inode.durable, done)
                inode.pending.clear()
                if entry.name in self._syncs_directory:
                    self._syncs_directory.discard(entry.name)
                    self._sync_directory()
            case "sync failed" if self._treacherous:
                self._names[entry.name].pending.clear()
            case "delete":
                self._rename({name: inode for name, inode in self._names.items() if name != entry.name})
                if entry.at:
                    self._sync_directory()

    def _rename(self, names: dict[str, _Inode]) -> None:
        self._names = names
        self._pending_names.append(names)

    def _sync_directory(self) -> None:
        self._durable_names = self._names
        self._pending_names.clear()

    def files_after_power_loss(self) -> dict[str, bytes]:
        """One of the many states in which the files can be found, drawn by chance."""
        # File systems that keep a journal of names keep their order.
        names = self._chance.choice([self._durable_names, *self._pending_names])
        survives = self._chance.choice([0.0, 0.5, 0.95, self._chance.random()])
        return {name: bytes(self._survived(inode, survives)) for name, inode in names.items()}

    def _survived(self, inode: _Inode, survives: float) -> bytearray:
        """The content of a file of whose unsynced sectors this share survives."""
        content = bytearray(inode.durable)
        for done in inode.pending:
            if done.what == "truncate":
                if self._chance.random() < survives:
                    _apply(content, done)
                continue
            start = 0
            while start < len(done.data):
                # Sectors lie at multiples of their size in the file, whatever the write was.
                end = min(len(done.data), start + SECTOR_BYTES - (done.at + start) % SECTOR_BYTES)
                if self._chance.random() < survives:
                    _apply(content, Entry("write", done.name, done.at + start, done.data[start:end]))
                start = end
        return content


def _apply(content: bytearray, done: Entry) -> None:
    if done.what == "truncate":
        del content[done.at :]
        content.extend(bytes(done.at - len(content)))
        return
    content.extend(bytes(max(0, done.at - len(content))))
    content[done.at : done.at + len(done.data)] = done.data
