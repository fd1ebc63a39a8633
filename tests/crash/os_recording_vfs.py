"""Writes down everything that SQLite asks of the disk, so that a test can lose power at any moment of it.

SQLite reaches the disk through a "VFS" (https://www.sqlite.org/vfs.html), and its own crash tests put one of their
own in between (https://www.sqlite.org/testing.html, section 4.2). This is such a one, in Python: it is registered
in the very library that the `sqlite3` module uses, so that Lineshaft runs on it unchanged, and hands every call on
to the ordinary one. Several processes write into one record, each entry by one appending write; since they write
to the store in turn, the record has the order in which things happened.

The index of the log (`-shm`) is no part of it: it is memory, made again after each start.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

from tests.crash.os_record import Entry, Record

OK, IOERR_FSYNC = 0, 10 | 4 << 8
MAIN_DB, MAIN_JOURNAL, WAL = 0x100, 0x800, 0x80000
"""Kinds of files that must survive; what SQLite makes beside them is temporary."""


class Vfs(Structure):
    """`sqlite3_vfs`."""

    _fields_ = [
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", c_void_p),
        ("xDelete", c_void_p),
        *((f"other_{number}", c_void_p) for number in range(14)),
    ]


class Methods(Structure):
    """`sqlite3_io_methods`, as far as version 3."""

    _fields_ = [
        ("iVersion", c_int),
        ("xClose", c_void_p),
        ("xRead", c_void_p),
        ("xWrite", c_void_p),
        ("xTruncate", c_void_p),
        ("xSync", c_void_p),
        *((f"other_{number}", c_void_p) for number in range(13)),
    ]


class File(Structure):
    """`sqlite3_file`: what follows its methods belongs to the ordinary VFS."""

    _fields_ = [("methods", POINTER(Methods))]


# Names are passed as the pointers they are: SQLite keeps the one it opens a file under.
OPEN = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(File), c_int, POINTER(c_int))
DELETE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
WRITE = ctypes.CFUNCTYPE(c_int, POINTER(File), c_void_p, c_int, c_int64)
TRUNCATE = ctypes.CFUNCTYPE(c_int, POINTER(File), c_int64)
SYNC = ctypes.CFUNCTYPE(c_int, POINTER(File), c_int)


def record_disk(record: Record, sync_fails: Callable[[], bool]) -> None:
    """Have this process's SQLite write down what it does, from now on.

    `sync_fails` is asked at each sync, as a disk that goes bad would be.
    """
    _registered.append(_RecordingVfs(record, sync_fails))


_registered: list[_RecordingVfs] = []
"""SQLite refers to it until the process ends."""


class _RecordingVfs:
    def __init__(self, record: Record, sync_fails: Callable[[], bool]) -> None:
        self._record = record
        self._sync_fails = sync_fails
        self._names: dict[int, str] = {}
        self._methods: dict[int, Methods] = {}
        self._kept: list[object] = []  # what C refers to
        # The module's own library, whatever name it has: two of them in one process would corrupt the file.
        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        library.sqlite3_vfs_find.restype = POINTER(Vfs)
        self._usual: Vfs = library.sqlite3_vfs_find(None).contents
        self._vfs = Vfs()
        ctypes.pointer(self._vfs)[0] = self._usual
        self._vfs.zName = b"recording"
        self._vfs.pNext = None
        self._vfs.xOpen = self._callback(OPEN, self._open)
        self._vfs.xDelete = self._callback(DELETE, self._delete)
        assert library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) == OK

    def _callback(self, kind: Any, function: Callable[..., int]) -> c_void_p:
        made = kind(function)
        self._kept.append(made)
        return ctypes.cast(made, c_void_p)

    def _open(self, _: int, name: int | None, file: Any, flags: int, flags_out: Any) -> int:
        path = None if name is None else Path(ctypes.string_at(name).decode())
        is_new = path is not None and not path.exists()
        result: int = OPEN(self._usual.xOpen)(ctypes.addressof(self._usual), name, file, flags, flags_out)
        if result == OK and path is not None and flags & (MAIN_DB | MAIN_JOURNAL | WAL):
            self._record.add(Entry("open", path.name, int(is_new)))
            self._names[ctypes.addressof(file.contents)] = path.name
            file.contents.methods = ctypes.pointer(self._recording(file.contents.methods))
        return result

    def _delete(self, _: int, name: int, sync_directory: int) -> int:
        path = Path(ctypes.string_at(name).decode())
        result: int = DELETE(self._usual.xDelete)(ctypes.addressof(self._usual), name, sync_directory)
        if result == OK:
            self._record.add(Entry("delete", path.name, sync_directory))
        return result

    def _recording(self, usual: Any) -> Methods:
        """The usual methods of a file, three of them wrapped."""
        address = ctypes.addressof(usual.contents)
        if address not in self._methods:
            methods = self._methods[address] = Methods()
            # The structure grows with its version, and what lies behind an old one is not ours to read.
            size = {1: 13, 2: 17}.get(usual.contents.iVersion, 19) * ctypes.sizeof(c_void_p)
            ctypes.memmove(ctypes.addressof(methods), address, size)
            methods.xWrite = self._callback(WRITE, self._write(WRITE(methods.xWrite)))
            methods.xTruncate = self._callback(TRUNCATE, self._truncate(TRUNCATE(methods.xTruncate)))
            methods.xSync = self._callback(SYNC, self._sync(SYNC(methods.xSync)))
        return self._methods[address]

    def _name(self, file: Any) -> str:
        return self._names[ctypes.addressof(file.contents)]

    def _write(self, usual: Callable[..., int]) -> Callable[..., int]:
        def write(file: Any, data: int, size: int, at: int) -> int:
            result = usual(file, data, size, at)
            # A write that failed may have been made in part, and is made again before anybody relies on it.
            self._record.add(Entry("write", self._name(file), at, ctypes.string_at(data, size)))
            return result

        return write

    def _truncate(self, usual: Callable[..., int]) -> Callable[..., int]:
        def truncate(file: Any, size: int) -> int:
            result = usual(file, size)
            self._record.add(Entry("truncate", self._name(file), size))
            return result

        return truncate

    def _sync(self, usual: Callable[..., int]) -> Callable[..., int]:
        def sync(file: Any, flags: int) -> int:
            result = IOERR_FSYNC if self._sync_fails() else usual(file, flags)
            self._record.add(Entry("sync" if result == OK else "sync failed", self._name(file)))
            return result

        return sync
