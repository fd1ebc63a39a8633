"""The share between tenants: even while all have work, and nobody waits behind a flood (FAILURES row 36).

Nothing here looks at a clock: who was served when is told by positions in the order of completion.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from lineshaft import App, Concurrency, Task
from lineshaft.core import bounds
from lineshaft.engine.worker import Worker
from tests.support import eventually, new_app, results_of

AT_ONCE = 20
"""Attempts at once in the worker: what may be under way when others come."""


def working_on(app: App, served: list[str], name: str = "work", **options: Any) -> Task[..., None]:
    """A task that puts down whose run it executes."""

    @app.task(name=name, tenant=lambda whose: whose, **options)
    async def work(whose: str) -> None:
        served.append(whose)
        await asyncio.sleep(0)

    return work


def worker_of(app: App) -> AbstractAsyncContextManager[Worker]:
    return app.worker(concurrency=Concurrency(on_loop=AT_ONCE))


async def test_tenants_with_work_are_served_evenly(tmp_path: Path) -> None:
    """Whatever each has waiting, and in whatever order it came: over any window each gets its part."""
    app = new_app(tmp_path)
    served: list[str] = []
    work = working_on(app, served)
    backlogs = {"huge": 5_000, "large": 2_000, "middle": 1_000, "small": 800}
    async with app:
        for tenant, count in backlogs.items():
            await work.submit_many([tenant] * count)
        async with worker_of(app):
            await eventually(lambda: len(served) >= 3_000)
    # Until the smallest has nothing left: 800 each. Windows of 200, a quarter of each for everybody.
    for start in range(0, 2_800, 200):
        shares = Counter(served[start : start + 200])
        assert all(abs(shares[tenant] - 50) <= AT_ONCE for tenant in backlogs), (start, shares)
    assert all(abs(served[:2_800].count(tenant) - 700) <= AT_ONCE for tenant in backlogs)


async def test_tenants_with_more_tasks_get_no_more(tmp_path: Path) -> None:
    """A tenant is one, however many tasks and queues its runs are spread over."""
    app = new_app(tmp_path)
    served: list[str] = []
    tasks = [working_on(app, served, f"work-{number}", queue=f"queue-{number}") for number in range(6)]
    async with app:
        await tasks[0].submit_many(["plain"] * 1_500)
        for task in tasks:
            await task.submit_many(["spread"] * 1_500)
        async with worker_of(app):
            await eventually(lambda: len(served) >= 2_000)
    for start in range(0, 2_000, 200):
        assert abs(served[start : start + 200].count("plain") - 100) <= AT_ONCE, start


async def test_who_has_nothing_leaves_its_part_to_the_others(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    served: list[str] = []
    work = working_on(app, served)
    async with app:
        await work.submit_many(["brief"] * 100)
        await work.submit_many(["lasting"] * 1_000)
        async with worker_of(app):
            await eventually(lambda: len(served) == 1_100)
    last = max(position for position, tenant in enumerate(served) if tenant == "brief")
    assert last <= 200 + AT_ONCE
    assert set(served[last + 1 :]) == {"lasting"}


async def test_a_flood_of_one_tenant_does_not_keep_others_waiting(tmp_path: Path) -> None:
    """Forty thousand runs stand there; what others submit then is served in turn with them, not behind them."""
    app = new_app(tmp_path)
    served: list[str] = []
    work = working_on(app, served)
    others = [f"other-{number}" for number in range(4)]
    async with app:
        await work.submit_many(["flood"] * 40_000)
        async with worker_of(app) as worker:
            for _ in range(5):
                await eventually(lambda: len(served) > 500)
                runs = await work.submit_many(others * 10)
                accepted = len(served)
                await results_of(runs)
                last = max(position for position, tenant in enumerate(served) if tenant != "flood")
                # Forty of theirs, ten of the flood's in its turns, and what was under way or claimed before.
                assert last - accepted <= 50 + 3 * AT_ONCE
                served.clear()
            assert worker.failed == 0


async def test_more_tenants_than_a_claim_looks_at_are_all_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LANES_VISITED_MAX", 4)
    app = new_app(tmp_path)
    served: list[str] = []
    work = working_on(app, served)
    tenants = [f"tenant-{number:02}" for number in range(16)]
    async with app:
        await work.submit_many(tenants * 30)
        async with app.worker(concurrency=Concurrency(on_loop=2)):
            await eventually(lambda: len(served) >= 160)
    counts = Counter(served[:160])
    assert all(5 <= counts[tenant] <= 20 for tenant in tenants), counts
