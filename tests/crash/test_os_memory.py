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


def hog_in_a_child(folder: Path, memory: Memory, child_bytes_max: int | None) -> str:
    """Why the run failed that used too much in a child of the pool, when all its neighbours succeeded."""
    with Scenario(folder) as scenario:
        scenario.make_store()
        room = {"processes": 1, "process_bytes_max": child_bytes_max}
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
        stop(worker)
        [[failure]] = scenario.rows(f"SELECT failure FROM lineshaft_run_history WHERE id = '{hog}'")
        return str(failure)


def test_a_hog_in_a_child_of_the_pool_harms_not_even_its_worker(tmp_path: Path, memory: Memory) -> None:
    assert "killed" in hog_in_a_child(tmp_path, memory, None)
    assert memory.kills == 1


def test_a_bound_on_the_children_of_the_pool_comes_before_the_kernel(tmp_path: Path) -> None:
    """It is looked at ten times a second, so it takes some room above it to come in time."""
    with memory_cgroup(tmp_path.name, 3 * HOG_MEBIBYTES * 1_048_576) as memory:
        assert "memory" in hog_in_a_child(tmp_path, memory, BYTES_MAX)
        assert memory.kills == 0
