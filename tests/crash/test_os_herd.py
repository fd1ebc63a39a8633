"""A hundred thousand runs due at the same instant: claims follow processes, and memory stays bounded (row 32)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lineshaft.core import bounds
from tests.crash.os_cgroups import memory_cgroup
from tests.crash.os_processes import Scenario, stop

COUNT = 100_000
SLOTS = bounds.CONCURRENCY_ASYNC
"""Attempts at once in each worker."""
GROWTH_BYTES_MAX = 32 * 1_048_576
"""What a worker may need over its idle size: a few thousand runs, and not all of them."""


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process ever had."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1_024


def survive_the_herd(folder: Path, inside: Sequence[str] = ()) -> None:
    with Scenario(folder) as scenario:
        scenario.make_store()
        assert scenario.start("flooder", "flooder", count=COUNT, delay=8).wait(60) == 0
        workers = [scenario.start("worker", name, inside=inside) for name in "ab"]
        scenario.until(lambda: len(scenario.told("working")) == 2)
        idle = [peak_bytes(worker.pid) for worker in workers]
        held_most = 0
        scenario.until(lambda: scenario.told("claimed")[-1][1] > 0)
        while True:
            [[left, held]] = scenario.rows("SELECT count(*), sum(state = 'running') FROM lineshaft_run")
            if not left:
                break
            held_most = max(held_most, held)
        grown = [peak_bytes(worker.pid) - before for worker, before in zip(workers, idle, strict=True)]
        for worker in workers:
            stop(worker)
        assert scenario.rows("SELECT state, count(*) FROM lineshaft_run_history GROUP BY 1") == [
            ("succeeded", COUNT)
        ]
        taken = [rows for _, rows in scenario.told("claimed")]
        assert sum(taken) == COUNT, "none was claimed twice"
        assert {worker for worker, rows in scenario.told("claimed") if rows} == {1, 2}
        # A claim for each slot that is free would be some hundred times as many.
        assert len(taken) < COUNT / 100
        assert SLOTS / 4 < held_most <= 2 * SLOTS
        assert max(grown) < GROWTH_BYTES_MAX


def test_many_due_at_once_are_claimed_by_few_and_held_by_fewer(tmp_path: Path) -> None:
    survive_the_herd(tmp_path)


@pytest.mark.servers
def test_the_same_in_little_memory(tmp_path: Path) -> None:
    with memory_cgroup(tmp_path.name, 256 * 1_048_576) as memory:
        survive_the_herd(tmp_path, memory.inside)
        assert memory.kills == 0
