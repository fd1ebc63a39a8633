"""The disk fills up under real processes, and has room again: refused clearly, nothing lost, on by itself (row 13).

The disk is a small file system in memory, in a namespace of its own, where most kernels let every user mount one.
`integration/test_sqlite_full_disk.py` shows what the store does; here a worker and submitters go on.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.os_processes import Scenario, end, stop

MOUNT = 'mount -t tmpfs -o size=64m none "$1" && echo mounted && exec sleep 3600'
ENTER = ["nsenter", "--preserve-credentials", "--user", "--mount", "--target"]


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A disk of 64 MiB: where it is seen from here, and the command that runs a program where it is mounted."""
    folder.mkdir()
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", str(folder)]
    if shutil.which("unshare") is None:
        pytest.skip("without unshare (util-linux) there is no file system to fill")
    keeper = subprocess.Popen(unshare, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"mounted\n":
            pytest.skip("this kernel lets no user mount a file system of their own")
        yield Path(f"/proc/{keeper.pid}/root{folder}"), [*ENTER, str(keeper.pid)]
    finally:
        end(keeper)
        keeper.communicate()


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4_096))
        except OSError:
            pass


def test_a_full_disk_stops_nobody_for_good(tmp_path: Path) -> None:
    inside = tmp_path / "disk"
    with small_disk(inside) as (disk, enter), Scenario(tmp_path, inside / "store.db", enter) as scenario:
        scenario.make_store()
        worker = scenario.start("worker", "worker")
        submitters = [
            scenario.start("submitter", "a", kinds="book,note"),
            scenario.start("submitter", "b", kinds="note"),
        ]
        scenario.until(lambda: len(scenario.told("succeeded")) > 100)
        for _ in range(2):
            refused, accepted = len(scenario.told("refused")), len(scenario.accepted())
            fill(disk / "filler")
            scenario.until(lambda before=refused: len(scenario.told("refused")) > before + 20)
            # What SQLite had room for in its log is used up sooner or later, and then nobody gets through.
            (disk / "filler").unlink()
            scenario.until(lambda before=accepted: len(scenario.accepted()) > before + 200)
        assert {code for _, _, code, *_ in scenario.told("refused")} == {"store-full"}
        assert all(retryable for *_, retryable in scenario.told("refused"))
        assert worker.poll() is None
        for process in submitters:
            stop(process)
        scenario.until(scenario.all_succeeded)
        stop(worker)
        scenario.require_sound()
