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


def failing(folder: Path) -> list[str]:
    """Runs a program with the fault, and with an ear for commands."""
    enabled = f"enable_random name={FAULT},probability=0.2"
    return ["fiu-run", "-x", "-f", str(folder / "fiu"), "-c", enabled]


def mend(folder: Path, *processes: subprocess.Popen[bytes]) -> None:
    """End the fault in processes that go on."""
    for process in processes:
        command = ["fiu-ctrl", "-f", str(folder / "fiu"), "-c", f"disable name={FAULT}", str(process.pid)]
        subprocess.run(command, check=True, timeout=10)


def test_what_could_not_be_synced_is_never_acknowledged(tmp_path: Path) -> None:
    with Scenario(tmp_path) as scenario:
        scenario.make_store()
        inside = failing(tmp_path)
        worker = scenario.start("worker", "worker", inside=inside)
        submitters = [
            scenario.start("submitter", "a", inside=inside, kinds="book,note"),
            scenario.start("submitter", "b", inside=inside, kinds="note"),
        ]
        scenario.until(lambda: len(scenario.told("refused")) > 40 and len(scenario.told("succeeded")) > 300)
        for _, _, code, message, retryable in scenario.told("refused"):
            assert (code, retryable) == ("store-unavailable", True)
            assert "SQLITE_IOERR" in message
            assert str(scenario.store) in message
        mend(tmp_path, worker, *submitters)
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
        scenario.make_store()
        inside = failing(tmp_path)
        processes = [scenario.start("worker", "worker", inside=inside)]
        processes += [scenario.start("submitter", name, inside=inside) for name in "ab"]
        scenario.until(lambda: len(scenario.told("refused")) > 20 and len(scenario.told("succeeded")) > 100)
        for process in processes:
            process.kill()
        worker = scenario.start("worker", "next")
        scenario.until(scenario.all_succeeded)
        stop(worker)
        scenario.require_sound()
