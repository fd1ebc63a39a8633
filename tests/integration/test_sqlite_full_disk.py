"""A disk that fills up, and has room again: refused clearly, nothing half done, and work goes on by itself.

The disk is a small file system in memory, mounted in a namespace of its own, so that no privilege is needed
where the kernel lets users have such. The child is this module, run as a program inside.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lineshaft.core.errors import StoreFull
from lineshaft.core.states import State
from lineshaft.store.sqlite import files
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import World

ROOT = Path(__file__).parents[2]
INSIDE = 'mount -t tmpfs -o size=6m none "$1" && shift && exec "$@"'


def in_a_small_disk(folder: Path, *command: str) -> list[str]:
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", INSIDE, "sh", str(folder)]
    return [*unshare, *command]


@pytest.mark.parametrize("checkpoints", ["rarely", "often"])
def test_a_full_disk_is_refused_and_recovered_from(tmp_path: Path, checkpoints: str) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("without unshare (util-linux) there is no file system to fill")
    if subprocess.run(in_a_small_disk(tmp_path, "true"), capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets no user mount a file system of their own")
    program = (sys.executable, "-m", "tests.integration.test_sqlite_full_disk", str(tmp_path), checkpoints)
    done = subprocess.run(
        in_a_small_disk(tmp_path, *program), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("recovered\n", 0), done.stderr


async def fill_and_recover(folder: Path, checkpoints: str) -> None:
    if checkpoints == "often":
        # Then it is the database that finds no room, while the log still has some.
        files.LOG_BYTES_TO_CHECKPOINT, files.COMMITS_TO_CHECKPOINT = 0, 1
    path = folder / "store.db"
    store = SqliteStore(path)
    world = World(VirtualClock(), lambda: asyncio.sleep(0, store))
    world.store = world.other = store
    await world.submitted(*world.several(40))
    hand = await world.worker()
    held = (await hand.claim(rows_max=20)).runs
    accepted = 40 + await fill(world, folder)
    assert await world.count() == accepted, "what was refused is not there, what was accepted is"
    assert await world.states([run.id for run in held]) == [State.RUNNING] * 20
    await refuse_everything(world)
    assert await world.count() == accepted

    (folder / "filler").unlink()
    assert all(await hand.succeed(*held)), "outcomes that had to wait are written"
    await world.submitted(*world.several(10))
    async with store.transaction() as tx:
        tx.submit([world.new()])
        tx.commit()
    assert await world.count() == accepted + 11
    await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def fill(world: World, folder: Path) -> int:
    """Leave no room on the disk; how many runs were accepted until then."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            for _ in range(4_000_000 // 4_096):
                filler.write(b"x" * 4_096)
        except OSError:
            pass
    accepted = 0
    for _ in range(10_000):
        try:
            accepted += len(await world.store.submit([world.new(args=b'"' + b"x" * 3_000 + b'"')]))
        except StoreFull:
            return accepted
    raise AssertionError("the disk did not fill up")


async def refuse_everything(world: World) -> None:
    large = b'"' + b"y" * 200_000 + b'"'
    for _ in range(3):
        for write in (world.store.submit([world.new(args=large)]), lent(world, large)):
            with pytest.raises(StoreFull, match="no room") as refused:
                await write
            assert refused.value.retryable


async def lent(world: World, args: bytes) -> None:
    async with world.store.transaction() as tx:
        tx.submit([world.new(args=args)])
        tx.commit()


if __name__ == "__main__":
    asyncio.run(fill_and_recover(Path(sys.argv[1]), sys.argv[2]))
    sys.stdout.write("recovered\n")
