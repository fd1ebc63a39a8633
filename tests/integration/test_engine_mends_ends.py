"""Faults that a reviewer found in how attempts and workers end, as in test_engine_mends.py."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lineshaft import Concurrency, Limit, Run, RunOutcomeUnknown, RunTimedOut, State
from lineshaft.core import bounds
from lineshaft.core.errors import StoreError, StoreFull
from lineshaft.engine import worker as worker_module
from lineshaft.store.values import ClaimReply, ClaimRequest, NewWorker, Outcome
from tests import pool_tasks
from tests.support import (
    PATIENCE_S,
    Overlap,
    error_of,
    eventually,
    new_app,
    result_of,
    results_of,
    working,
)

# Outcomes that the store does not take


async def test_an_outcome_is_kept_until_the_store_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, refusals = new_app(tmp_path), 0
    app.queue("q", limits=[Limit(1)])

    @app.task(queue="q")
    async def work(number: int) -> int:
        return number

    async with working(app) as worker:
        store = app.runtime.store
        settle = store.settle

        async def refusing(outcomes: Sequence[Outcome]) -> Sequence[bool]:
            nonlocal refusals
            refusals += 1
            # The outcome, it again and as a plain failure, it again and as a plain failure.
            if refusals <= 5:
                raise StoreError("refused, and not marked as passing")
            return await settle(outcomes)

        monkeypatch.setattr(store, "settle", refusing)
        first, second = await work.submit(1), await work.submit(2)
        assert await results_of([first, second]) == [1, 2]
        assert (await first.view()).attempts == 1
        assert worker.in_flight == 0


async def test_a_worker_leaves_a_store_that_takes_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SETTLE_S_MAX", 0.3)
    monkeypatch.setattr(bounds, "WRITER_HOLD_S_MAX", 0.3)
    app, bodies = new_app(tmp_path), 0

    @app.task
    async def work() -> int:
        nonlocal bodies
        bodies += 1
        return bodies

    async def full(outcomes: Sequence[Outcome]) -> Sequence[bool]:
        raise StoreFull("no room")

    async with app:
        with monkeypatch.context() as patched:
            async with asyncio.timeout(PATIENCE_S), app.worker(grace=0):
                patched.setattr(app.runtime.store, "settle", full)
                run = await work.submit()
                await eventually(lambda: bodies)
        assert await run.status() is State.READY
        async with app.worker():
            assert await result_of(run) == 2


# Ways to leave, and to lose a lease


async def test_a_drain_that_is_cancelled_leaves_nothing_held(tmp_path: Path) -> None:
    app, begun, leave = new_app(tmp_path), asyncio.Event(), asyncio.Event()
    end = asyncio.Event()

    @app.task
    async def work() -> str:
        begun.set()
        await end.wait()
        return "done"

    async def serve() -> None:
        async with app.worker(grace=PATIENCE_S):
            await leave.wait()

    async with app:
        serving = asyncio.create_task(serve())
        run = await work.submit()
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        leave.set()
        await asyncio.sleep(0.1)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert await app.runtime.store.workers() == []
        assert await run.status() is State.READY
        end.set()
        async with app.worker():
            assert await result_of(run) == "done"


@pytest.mark.parametrize("reply", ["during the renewal", "after it"])
async def test_what_was_claimed_for_an_incarnation_that_is_over_is_executed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    app, end, overlap = new_app(tmp_path), asyncio.Event(), Overlap()
    claimed, reply_may_come, may_register = asyncio.Event(), asyncio.Event(), asyncio.Event()
    claims_while_renewing = bodies = 0

    @app.task
    async def work() -> str:
        nonlocal bodies
        bodies += 1
        overlap.enter()
        try:
            await end.wait()
        finally:
            overlap.leave()
        return "done"

    async with working(app) as worker:
        store, old = app.runtime.store, worker.id
        claim, register = store.claim, store.register

        async def late(request: ClaimRequest) -> ClaimReply:
            nonlocal claims_while_renewing
            claims_while_renewing += worker._renewing
            answer = await claim(request)
            if answer.runs and request.worker == old:
                claimed.set()
                await reply_may_come.wait()
            return answer

        async def patient(new: NewWorker) -> int:
            await may_register.wait()
            return await register(new)

        async def renewed() -> bool:
            return worker.id != old and [each.id for each in await store.workers()] == [worker.id]

        monkeypatch.setattr(store, "claim", late)
        monkeypatch.setattr(store, "register", patient)
        run = await work.submit()
        await asyncio.wait_for(claimed.wait(), PATIENCE_S)
        worker._lease_lost()
        if reply == "during the renewal":
            reply_may_come.set()
            await asyncio.sleep(0.1)
            worker._fetcher.wake()
            await asyncio.sleep(0.1)
            may_register.set()
            await eventually(renewed)
        else:
            may_register.set()
            await eventually(renewed)
            reply_may_come.set()
        await eventually(lambda: bodies)
        end.set()
        assert await result_of(run) == "done"
        assert (bodies, overlap.most[None], claims_while_renewing) == (1, 1, 0)


async def test_a_heartbeat_that_fails_in_an_unknown_way_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, beats = new_app(tmp_path), 0
    async with working(app, lease=1) as worker:
        first, beat = worker.id, app.runtime.store.beat

        def failing(number: int, lease_us: int) -> bool:
            nonlocal beats
            beats += 1
            if beats == 1:
                raise OSError(37, "No locks available")
            return beat(number, lease_us)

        with caplog.at_level(logging.ERROR, "lineshaft"):
            monkeypatch.setattr(app.runtime.store, "beat", failing)
            await eventually(lambda: beats >= 4)
        assert worker.id == first


# Bodies that outlast their attempts


async def test_threads_that_outlast_their_timeout_are_counted(tmp_path: Path) -> None:
    app, end, overlap = new_app(tmp_path), threading.Event(), Overlap()

    @app.task(timeout=0.1)
    def hang() -> str:
        overlap.enter()
        end.wait(PATIENCE_S)
        overlap.leave()
        return "done"

    async with working(app, concurrency=Concurrency(threads=2), lease=4):
        runs = await hang.submit_many([()] * 6)
        ended = await asyncio.wait_for(_first_failures(runs, 2), PATIENCE_S)
        await asyncio.sleep(0.5)
        waiting = [run for run in runs if run not in ended]
        assert {await run.status() for run in waiting} == {State.READY}
        end.set()
        assert await results_of(waiting) == ["done"] * 4
        assert overlap.most[None] == 2


async def _first_failures(runs: Sequence[Run[Any]], count: int) -> list[Run[Any]]:
    while True:
        failed = [run for run in runs if await run.status() is State.FAILED]
        if len(failed) >= count:
            for run in failed:
                assert isinstance(await error_of(run), RunTimedOut)
            return failed
        await asyncio.sleep(0.02)


async def test_at_most_once_work_whose_process_died_has_an_unknown_outcome(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    # The child finds the function in its module, declared there for another app.
    pay = app.task(name="pay", run_in="process", at_most_once=True)(
        pool_tasks.misbehaves.declaration.function
    )
    async with working(app, concurrency=Concurrency(processes=1)):
        run = await pay.submit("kill")
        assert isinstance(await error_of(run), RunOutcomeUnknown)
        assert (await run.view()).state is State.OUTCOME_UNKNOWN


async def test_a_batch_is_stopped_when_all_its_runs_are(tmp_path: Path) -> None:
    app, overlap, begun = new_app(tmp_path), Overlap(), asyncio.Event()
    end, told = asyncio.Event(), 0

    @app.task(batch=2)
    async def post(numbers: list[int]) -> list[int]:
        nonlocal told
        overlap.enter()
        begun.set()
        try:
            await end.wait()
        except asyncio.CancelledError:
            told += 1
            raise
        finally:
            overlap.leave()
        return numbers

    async with app:
        async with app.worker(grace=0):
            runs = await post.submit_many([1, 2])
            await asyncio.wait_for(begun.wait(), PATIENCE_S)
        assert told == 1
        for run in runs:
            view = await run.view()
            assert (view.state, view.attempts) == (State.READY, 0)
        end.set()
        async with app.worker():
            assert await results_of(runs) == [1, 2]
        assert overlap.most[None] == 1


async def test_a_batch_goes_on_for_the_runs_that_nobody_stopped(tmp_path: Path) -> None:
    app, begun, end = new_app(tmp_path), asyncio.Event(), asyncio.Event()

    @app.task(batch=2)
    async def post(numbers: list[int]) -> list[int]:
        begun.set()
        await end.wait()
        return numbers

    async with working(app) as worker:
        one, other = await post.submit_many([1, 2])
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        await one.cancel()
        await eventually(lambda: any(each.stop for each in worker._in_flight.values()))
        end.set()
        assert await result_of(other) == 2
