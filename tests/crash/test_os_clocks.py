"""Clocks that disagree, and clocks that are set while work goes on: leases do not notice (row 28).

The kernel can give a process a boot-time clock of its own (a time namespace, as containers have them) but no wall
clock; a wall clock that differs is libfaketime's doing, and needs that package. libfaketime is kept from the
monotonic clock: Python's own waits (`threading.Event().wait(1)`) never end under it otherwise.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crash.os_processes import Scenario, stop

BOOT_TIME = "import time; print(int(time.clock_gettime(time.CLOCK_BOOTTIME)))"


def in_other_boot_time(shift_s: int) -> list[str]:
    """The command that runs a program for which the machine started at another time."""
    if shutil.which("unshare") is None:
        pytest.skip("without unshare (util-linux) there is no time namespace")
    shift = str(shift_s)
    inside = ["unshare", "--map-root-user", "--time", "--boottime", shift, "--monotonic", shift]
    probe = subprocess.run([*inside, sys.executable, "-c", BOOT_TIME], capture_output=True, check=False)
    shifted_s = int(probe.stdout or 0) - time.clock_gettime(time.CLOCK_BOOTTIME)
    if abs(shifted_s - shift_s) > 60:
        pytest.skip("this kernel gives users no time namespaces")
    return inside


@pytest.mark.parametrize("way", [1, -1])
def test_who_counts_from_another_start_of_the_machine_steals_no_lease(tmp_path: Path, way: int) -> None:
    hour_or_less_s = min(3_600, int(time.clock_gettime(time.CLOCK_BOOTTIME)) - 30)
    inside = in_other_boot_time(way * hour_or_less_s)
    with Scenario(tmp_path) as scenario:
        scenario.make_store()
        few = {"on_loop": 10}
        workers = [
            scenario.start("worker", "usual", lease="1.5", concurrency=few),
            scenario.start("worker", "other", lease="1.5", concurrency=few, inside=inside),
        ]
        scenario.until(lambda: len(scenario.told("working")) == 2)
        assert scenario.start("dweller", "dweller", count=20, seconds=3).wait(60) == 0
        scenario.until(lambda: len(scenario.told("ended")) >= 20)
        began = scenario.told("began")
        assert len({pid for *_, pid in began}) == 2, "both had work"
        assert len(began) == len({run for run, *_ in began}) == 20, "no lease was stolen"
        for process in workers:
            stop(process)
        assert "died" not in scenario.log
        assert "lost its lease" not in scenario.log
