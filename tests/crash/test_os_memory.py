"""Memory runs out: whoever used it is stopped, and its neighbours are not harmed (rows 2 and 32)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineshaft import State
from tests.crash.os_cgroups import Memory, memory_cgroup
from tests.crash.os_processes import Scenario, stop

pytestmark = pytest.mark.servers

BYTES_MAX = 192 * 1_048_576
"""Room for a worker (some 60 MiB) and its children, and not for the hog."""
HOG_MEBIBYTES = 400


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    with memory_cgroup(tmp_path.name, BYTES_MAX) as memory:
        yield memory


def test_a_run_that_has_its_worker_killed_for_memory_is_given_up_alone(
    tmp_path: Path, memory: Memory
) -> None:
    with Scenario(tmp_path) as scenario:
        scenario.make_store()
        assert (
            scenario.start("hogger", "hogger", task="hog", mebibytes=HOG_MEBIBYTES, neighbours=14).wait(60)
            == 0
        )
        [[hog, *neighbours]] = scenario.told("hogs")
        deaths = 0
        while scenario.rows("SELECT count(*) FROM lineshaft_run") != [(0,)]:
            worker = scenario.start("worker", f"worker {deaths}", lease="5", inside=memory.inside)
            scenario.until(
                lambda worker=worker: (
                    worker.poll() is not None or scenario.rows("SELECT count(*) FROM lineshaft_run") == [(0,)]
                )
            )
            if worker.poll() is not None:
                assert worker.returncode == -9
                deaths += 1
        assert memory.kills == deaths >= 4
        ended = dict(scenario.rows("SELECT id, state FROM lineshaft_run_history"))
        assert ended.pop(hog) == State.FAILED
        assert ended == dict.fromkeys(neighbours, State.SUCCEEDED)
        [[failure]] = scenario.rows(f"SELECT failure FROM lineshaft_run_history WHERE id = '{hog}'")
        assert "died while it executed this run alone" in failure
        crashes = scenario.rows("SELECT id, crashes FROM lineshaft_run_history WHERE crashes > 0")
        assert crashes == [(hog, 4)], "a neighbour was charged"
        stop(worker)


@pytest.mark.parametrize("bytes_max", [None, 150 * 1_048_576])
def test_a_hog_in_a_child_of_the_pool_harms_not_even_its_worker(
    tmp_path: Path, memory: Memory, bytes_max: int | None
) -> None:
    """The kernel's own killer takes the child; a bound on the children comes before it."""
    with Scenario(tmp_path) as scenario:
        scenario.make_store()
        room = {"processes": 1, "process_bytes_max": bytes_max}
        worker = scenario.start("worker", "worker", concurrency=room, inside=memory.inside)
        hogger = scenario.start(
            "hogger", "hogger", task="hog_in_child", mebibytes=HOG_MEBIBYTES, neighbours=14
        )
        assert hogger.wait(60) == 0
        [[hog, *neighbours]] = scenario.told("hogs")
        scenario.until(lambda: scenario.rows("SELECT count(*) FROM lineshaft_run") == [(0,)])
        ended = dict(scenario.rows("SELECT id, state FROM lineshaft_run_history"))
        assert ended.pop(hog) == State.FAILED
        assert ended == dict.fromkeys(neighbours, State.SUCCEEDED)
        [[failure]] = scenario.rows(f"SELECT failure FROM lineshaft_run_history WHERE id = '{hog}'")
        assert memory.kills == (bytes_max is None)
        assert ("killed" if bytes_max is None else "memory") in failure, failure
        stop(worker)
