"""What the kernel is really asked for: the ground that `os_forgetful_disk` stands on (row 12).

The disk of those tests believes what SQLite's VFS is told. Here the calls of the system are listened to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.os_processes import PATIENCE_S, Scenario

pytestmark = pytest.mark.servers

CALLS = "trace=openat,pwrite64,write,ftruncate,fsync,fdatasync,unlink"
CALL = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)")
"""Process, name, whether it ends a call that another thread's came into, and the rest."""

TURNS = 20


def calls(trace: Path) -> Iterator[tuple[str, str]]:
    """What was done to which file, in the order in which it was done; writes are seen when they begin."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        found = CALL.match(line)
        if found is None:
            continue
        process, name, how, rest = found.groups()
        # A descriptor is followed by its path, <so>; openat and unlink name theirs in quotes.
        path = re.search(r'"([^"]*)"' if name in ("openat", "unlink") else r"<([^<>]+)>", rest)
        file = path.group(1).split("/")[-1] if path else ""
        if name == "openat" and "O_CREAT" in rest:
            yield "create", file
        if rest.endswith("<unfinished ...>"):
            begun[process] = file
            if name not in ("fsync", "fdatasync"):
                yield name, file
        elif how == "(" or name in ("fsync", "fdatasync"):
            yield name, file if how == "(" else begun[process]
        if '"[\\"told\\", \\"accepted\\"' in rest:
            yield "told", "accepted"


def test_what_is_acknowledged_was_synced_with_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    trace = tmp_path / "trace"
    with Scenario(tmp_path, folder / "store.db") as scenario:
        inside = ["strace", "-f", "-y", "-s", "64", "-e", CALLS, "-o", str(trace)]
        scenario.make_store(inside=inside)
        made = list(calls(trace))
        often = {"OS_CHECKPOINTS": "often"}
        submitter = scenario.start(
            "dweller", "dweller", inside=inside, environment=often, count=30, seconds=0, turns=TURNS
        )
        assert submitter.wait(PATIENCE_S) == 0
    unsynced: set[str] = set()
    log_exists = False
    acknowledged = emptied = named = 0
    for call, file in [*made, *calls(trace)]:
        match call, file:
            case (("fsync" | "fdatasync"), _):
                named += file == folder.name and folder.name in unsynced
                unsynced.discard(file)
            case (("unlink" | "ftruncate"), "store.db-wal"):
                assert "store.db" not in unsynced, "the log is emptied before the database has it"
                emptied += 1
                log_exists = log_exists and call != "unlink"
            case (("pwrite64" | "ftruncate"), _):
                unsynced.add(file)
            case "create", "store.db-wal" if not log_exists:
                unsynced.add(folder.name)
                log_exists = True
            case "told", _:
                assert not unsynced & {"store.db-wal", folder.name}, "acknowledged before it was synced"
                acknowledged += 1
    assert acknowledged == TURNS
    assert named >= 2
    assert emptied >= 2
