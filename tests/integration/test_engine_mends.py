"""Faults that a reviewer found in fetching, each provoked as small as it can be, so that none comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lineshaft import App, Concurrency, Limit, Run, State
from lineshaft.core import bounds
from lineshaft.engine.fairness import share_out
from lineshaft.engine.places import THREAD
from lineshaft.store.values import ClaimRequest, LaneShare, NewWorker, OpenLane
from tests.support import (
    PATIENCE_S,
    eventually,
    new_app,
    reaches,
    result_of,
    results_of,
    working,
)

# Suspects


async def suspected(app: App, run: Run[Any]) -> None:
    """What a rescue leaves behind: the run in a group of suspects, ready. It was submitted with a delay."""
    connection = app.connect()
    connection.execute("UPDATE lineshaft_run SET state = 'ready', suspect = 1 WHERE id = ?", (run.id,))
    connection.close()
    assert (await run.view()).suspect == 1


async def test_a_busy_worker_goes_on_when_another_has_done_the_suspects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SUSPECTS_PATIENCE_S", 3_600.0)
    app, end = new_app(tmp_path), asyncio.Event()

    @app.task(queue="long")
    async def long() -> None:
        await end.wait()

    @app.task(queue="shared")
    async def suspect() -> None:
        pass

    @app.task(queue="mine")
    async def quick() -> str:
        return "done"

    async with working(app, queues=["long", "shared", "mine"], grace=0) as worker:
        held = await long.submit()
        await reaches(held, State.RUNNING)
        run = await suspect.submit(delay=600)
        await suspected(app, run)
        await eventually(lambda: worker._fetcher._waiting_since_s is not None, "it waits to be idle")
        async with app.worker(queues=["shared"]):
            await result_of(run)
        assert await result_of(await quick.submit()) == "done"
        assert await held.status() is State.RUNNING
        end.set()
        await result_of(held)


async def test_a_worker_that_is_never_idle_takes_suspects_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SUSPECTS_PATIENCE_S", 0.5)
    app, end = new_app(tmp_path), asyncio.Event()

    @app.task
    async def long() -> None:
        await end.wait()

    @app.task
    async def quick(number: int) -> int:
        return number

    async with working(app):
        held = await long.submit()
        await reaches(held, State.RUNNING)
        run = await quick.submit(1, delay=600)
        await suspected(app, run)
        assert await result_of(run) == 1
        assert await result_of(await quick.submit(2)) == 2
        assert await held.status() is State.RUNNING
        end.set()
        await result_of(held)


async def test_a_suspect_executes_alone_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SUSPECTS_ALONE_S_MAX", 1.0)
    app, begun, end = new_app(tmp_path), asyncio.Event(), asyncio.Event()

    @app.task
    async def suspect() -> None:
        begun.set()
        await end.wait()

    @app.task
    async def quick() -> str:
        return "done"

    async with app:
        run = await suspect.submit(delay=600)
        await suspected(app, run)
        async with app.worker() as worker:
            await asyncio.wait_for(begun.wait(), PATIENCE_S)
            waiting = await quick.submit()
            assert not worker._fetcher._may_claim(), "nothing executes beside it at first"
            assert await result_of(waiting) == "done"
            assert await run.status() is State.RUNNING
            end.set()
            await result_of(run)


# Lanes that are shut


async def test_tenants_at_their_limit_take_no_turns(tmp_path: Path) -> None:
    app, end = new_app(tmp_path), asyncio.Event()
    app.queue("q", limits=[Limit(1, per="tenant")])

    @app.task(queue="q", tenant="required")
    async def hold() -> None:
        await end.wait()

    @app.task(queue="q", tenant="required")
    def quick() -> None:
        pass

    # One place, and a lease so long that no heartbeat has the worker look again soon.
    async with working(app, concurrency=Concurrency(threads=1), lease=60):
        tenants = [f"tenant-{number:02}" for number in range(40)]
        holders = [await hold.submit(tenant=tenant) for tenant in tenants]
        for run in holders:
            await reaches(run, State.RUNNING)
        shut = [await quick.submit(tenant=tenant) for tenant in tenants]
        for _ in range(5):
            await result_of(await quick.submit(tenant="free"))
        assert {await run.status() for run in shut} == {State.READY}
        end.set()
        await results_of(holders + shut)


async def test_what_a_shut_lane_would_get_goes_to_the_others(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(limits=[Limit(1)])
    def shut() -> None:
        pass

    @app.task
    def quick(number: int) -> None:
        pass

    async with app:
        store, registry, clock = app.runtime.store, app.registry, app.runtime.clock
        number = await store.register(
            NewWorker(
                host="here",
                pid=1,
                started_us=clock.now_us(),
                queues=(),
                tasks=tuple((task.name, task.version) for task in registry.tasks()),
                lease_us=60_000_000,
                terms=registry.terms(),
            )
        )

        async def taken(turn: int) -> list[str]:
            """The tasks of what a worker with one place gets, whoever's turn it is."""

            def plan(lanes: Sequence[OpenLane]) -> Sequence[LaneShare]:
                return share_out(lanes, lambda _: THREAD, registry.gates, {THREAD: 1}, turn, {})

            reply = await store.claim(
                ClaimRequest(worker=number, now_us=clock.now_us(), plan=plan, after_lane=-1, idle=True)
            )
            return [run.lane.task for run in reply.runs]

        await shut.submit_many([()] * 2)
        assert await taken(0) == [shut.declaration.name]
        await quick.submit_many(range(6))
        assert [await taken(turn) for turn in range(6)] == [[quick.declaration.name]] * 6
        assert await taken(0) == []
