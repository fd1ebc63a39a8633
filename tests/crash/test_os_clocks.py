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


HOUR_S = 3_600


def in_other_wall_time(shift: str | Path) -> list[str]:
    """The command that runs a program whose wall clock is off by so much, or by what stands in a file just now."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    says = f"FAKETIME={shift}" if isinstance(shift, str) else f"FAKETIME_TIMESTAMP_FILE={shift}"
    # Without the last one libfaketime has the switch between two threads of Python wait for the wrong clock.
    alone = ["FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1", "FAKETIME_FORCE_MONOTONIC_FIX=0"]
    return ["env", f"LD_PRELOAD={library}", says, *alone]


def dwell_beside(scenario: Scenario, inside: list[str]) -> None:
    """Two workers with as much work each, whose attempts outlast their leases, and one of which runs `inside`."""
    few = {"on_loop": 10}
    workers = [
        scenario.start("worker", "usual", lease="1.5", concurrency=few),
        scenario.start("worker", "other", lease="1.5", concurrency=few, inside=inside),
    ]
    scenario.until(lambda: len(scenario.told("working")) == 2)
    assert scenario.start("dweller", "dweller", count=20, seconds=3).wait(60) == 0
    scenario.until(lambda: len(scenario.told("ended")) >= 20)
    for process in workers:
        stop(process)


def require_no_lease_stolen(scenario: Scenario) -> None:
    began = scenario.told("began")
    assert len({pid for _, pid, _ in began}) == 2, "both had work"
    assert len(began) == len({run for run, *_ in began}) == 20
    assert "died" not in scenario.log
    assert "lost its lease" not in scenario.log


@pytest.mark.parametrize("way", [1, -1])
def test_who_counts_from_another_start_of_the_machine_steals_no_lease(tmp_path: Path, way: int) -> None:
    up_s = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    inside = in_other_boot_time(way * min(HOUR_S, up_s - 30))
    with Scenario(tmp_path) as scenario:
        scenario.make_store()
        dwell_beside(scenario, inside)
        require_no_lease_stolen(scenario)


@pytest.mark.servers
@pytest.mark.parametrize("shift_s", [HOUR_S, -HOUR_S])
def test_who_has_another_wall_time_steals_no_lease(tmp_path: Path, shift_s: int) -> None:
    with Scenario(tmp_path) as scenario:
        scenario.make_store()
        dwell_beside(scenario, in_other_wall_time(f"{shift_s:+d}"))
        require_no_lease_stolen(scenario)
        told_s = {pid: time_s for _, pid, time_s in scenario.told("began")}
        assert max(told_s.values()) - min(told_s.values()) > HOUR_S / 2, "the clocks agreed"


@pytest.mark.servers
@pytest.mark.parametrize("shift_s", [HOUR_S, -HOUR_S])
def test_nothing_begins_before_some_clock_says_that_it_is_due(tmp_path: Path, shift_s: int) -> None:
    """A worker whose clock is behind begins nothing early. One whose clock is ahead does, and by no more than that."""
    with Scenario(tmp_path) as scenario:
        scenario.make_store()
        inside = in_other_wall_time(f"{shift_s:+d}")
        scenario.start("worker", "usual", lease="5")
        scenario.start("worker", "other", lease="5", inside=inside)
        scenario.until(lambda: len(scenario.told("working")) == 2)
        for delay_s in (2, 4, HOUR_S / 2):
            dweller = scenario.start("dweller", "dweller", count=20, seconds=0, delay=delay_s)
            assert dweller.wait(60) == 0
        due_s = {run: at_s for at_s, runs in scenario.told("due") for run in runs}
        scenario.until(lambda: len(scenario.told("ended")) >= (60 if shift_s > 0 else 40))
        began = scenario.told("began")
        assert len(began) == len({run for run, *_ in began})
        for run, _, at_s in began:
            assert at_s >= due_s[run] - max(0, shift_s)
        if shift_s < 0:
            assert {due_s[run] for run, *_ in began} == set(sorted(set(due_s.values()))[:2])


@pytest.mark.servers
def test_work_goes_on_when_the_clock_is_set(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    inside = in_other_wall_time(clock)
    with Scenario(tmp_path, inside=inside) as scenario:
        scenario.make_store()
        worker = scenario.start("worker", "worker", lease="2")
        submitter = scenario.start("submitter", "a", kinds="book,note,paced")
        for shift in ("+0", f"-{HOUR_S}", f"+{HOUR_S}"):
            clock.write_text(shift)
            # The tasks of a rate among them: it was last pushed by what is now a time to come.
            for kind in ("book", "note", "paced"):
                before = scenario.succeeded(kind)
                scenario.until(lambda kind=kind, before=before: scenario.succeeded(kind) > before + 40)
        stop(submitter)
        scenario.until(scenario.all_succeeded)
        stop(worker)
        scenario.require_sound()
        assert scenario.told("refused") == []
        assert "lease" not in scenario.log


@pytest.mark.servers
def test_who_waits_for_a_time_notices_when_the_clock_jumps_there(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with Scenario(tmp_path, inside=in_other_wall_time(clock)) as scenario:
        scenario.make_store()
        worker = scenario.start("worker", "worker", lease="2")
        dweller = scenario.start("dweller", "dweller", count=1, seconds=0, delay=HOUR_S / 2)
        assert dweller.wait(60) == 0
        scenario.until(lambda: scenario.told("working"))
        assert scenario.told("began") == []
        clock.write_text(f"+{HOUR_S}")
        scenario.until(lambda: scenario.told("ended"))
        stop(worker)
