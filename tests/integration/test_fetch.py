"""Fetching where most lanes are shut or belong to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineshaft import App
from lineshaft.core import bounds


@pytest.mark.parametrize("lanes_visited_max", [1, 3, 256])
async def test_lanes_of_others_hide_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes_visited_max: int
) -> None:
    monkeypatch.setattr(bounds, "LANES_VISITED_MAX", lanes_visited_max)
    app = App("fetch", store=f"sqlite:///{tmp_path}/store.db")

    @app.task(queue="others", tenant=lambda number: f"tenant-{number}")
    async def other(number: int) -> int:
        return number

    @app.task(queue="mine", tenant=lambda number: f"tenant-{number}")
    async def mine(number: int) -> int:
        return number

    async with app:
        await other.submit_many(range(20))
        async with app.worker(queues=["mine"]):
            for number in range(5):
                run = await mine.submit(number)
                assert await run.result(timeout=60) == number
            runs = await mine.submit_many(range(20))
            assert [await run.result(timeout=60) for run in runs] == list(range(20))
        assert (await app.queue_stats("others")).unfinished == 20
