"""One sync in five fails: a commit that failed is never acknowledged, and all is well when it stops (row 11).

`test_os_power_loss.py` shows the same together with a loss of power.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.crash.os_processes import Scenario, stop

pytestmark = pytest.mark.servers

FAULT = "posix/io/sync/*"
"""Of libfiu: `fsync` and `fdatasync`, whichever of them SQLite was built to use."""


def listening(folder: Path) -> list[str]:
    """Runs a program with an ear for libfiu's commands."""
    return ["fiu-run", "-x", "-f", str(folder / "fiu")]


def command(folder: Path, does: str, *processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        told = ["fiu-ctrl", "-f", str(folder / "fiu"), "-c", does, str(process.pid)]
        subprocess.run(told, check=True, timeout=10)


def with_failing_syncs(scenario: Scenario) -> list[subprocess.Popen[bytes]]:
    """A worker and two submitters, for whom a fifth of all syncs fails by now."""
    scenario.make_store()
    inside = listening(scenario.folder)
    processes = [
        scenario.start("worker", "worker", inside=inside),
        scenario.start("submitter", "a", inside=inside, kinds="book,note"),
        scenario.start("submitter", "b", inside=inside, kinds="note"),
    ]
    scenario.until(lambda: len(scenario.told("succeeded")) > 20)
    command(scenario.folder, f"enable_random name={FAULT},probability=0.2", *processes)
    return processes


def test_what_could_not_be_synced_is_never_acknowledged(tmp_path: Path) -> None:
    with Scenario(tmp_path) as scenario:
        worker, *submitters = with_failing_syncs(scenario)
        scenario.until(lambda: len(scenario.told("refused")) > 40 and len(scenario.told("succeeded")) > 300)
        for _, _, code, message, retryable in scenario.told("refused"):
            assert (code, retryable) == ("store-unavailable", True)
            assert "SQLITE_IOERR" in message
            assert str(scenario.store) in message
        command(tmp_path, f"disable name={FAULT}", worker, *submitters)
        before = len(scenario.told("refused"))
        accepted = len(scenario.accepted())
        scenario.until(lambda: len(scenario.accepted()) > accepted + 300)
        # One may have been under way.
        assert len(scenario.told("refused")) <= before + len(submitters)
        for process in submitters:
            stop(process)
        scenario.until(scenario.all_succeeded)
        stop(worker)
        scenario.require_sound()


def test_killed_in_the_middle_of_it_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """A commit whose sync failed may be found in the log afterwards, and then the run executes; one that was
    acknowledged is there for certain.
    """
    with Scenario(tmp_path) as scenario:
        processes = with_failing_syncs(scenario)
        scenario.until(lambda: len(scenario.told("refused")) > 20 and len(scenario.told("succeeded")) > 100)
        for process in processes:
            process.kill()
        worker = scenario.start("worker", "next")
        scenario.until(scenario.all_succeeded)
        stop(worker)
        scenario.require_sound()
