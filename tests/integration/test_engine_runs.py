"""The handle of a run, from a loop, from plain threads, and from another process."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lineshaft import (
    App,
    AsyncTransaction,
    Context,
    LineshaftError,
    Progress,
    ResultTimeout,
    Retry,
    Run,
    RunCancelled,
    RunFailed,
    RunNotFound,
    State,
    StoreError,
    Task,
    Transaction,
)
from lineshaft.core.errors import StoreUnavailable
from tests.crash import programs
from tests.support import (
    PATIENCE_S,
    ROOT,
    STRICT,
    Program,
    address,
    error_of,
    eventually,
    new_app,
    reaches,
    result_of,
    results_of,
    working,
)


def sleeper(app: App) -> Task[Any, Any]:
    @app.task(name="sleeps")
    async def sleeps(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    return sleeps


# Status and result


async def test_status_follows_a_run_through_its_states(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    go_on = asyncio.Event()

    @app.task(retry=Retry(attempts=2, initial=60, maximum=60))
    async def work(fail: bool) -> int:
        await go_on.wait()
        if fail:
            raise ValueError
        return 1

    async with app:
        run = await work.submit(False)
        assert await run.status() is State.READY
        later = await work.submit(False, delay=60)
        assert await later.status() is State.SCHEDULED
        async with app.worker():
            assert await reaches(run, State.RUNNING)
            go_on.set()
            assert await result_of(run) == 1
            assert await run.status() is State.SUCCEEDED
            failing = await work.submit(True)
            await reaches(failing, State.SCHEDULED)
            assert (await failing.view()).attempts == 1


async def test_waiting_ends_in_time_and_the_run_goes_on(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)
    async with working(app):
        run = await sleeps.submit(0.5)
        with pytest.raises(ResultTimeout, match=r"not ended within 0\.05 seconds; it goes on") as caught:
            await run.result(timeout="50ms")
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(ResultTimeout):
            await run.result(timeout=0)
        assert await result_of(run) == 0.5
        assert await run.result(timeout=0) == 0.5


async def test_many_wait_for_one_run(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)
    async with working(app):
        run = await sleeps.submit(0.2)
        gives_up = asyncio.ensure_future(run.result())
        waiting = [asyncio.ensure_future(result_of(run)) for _ in range(20)]
        await asyncio.sleep(0.05)
        gives_up.cancel()
        assert await asyncio.gather(*waiting) == [0.2] * 20
        assert await result_of(run) == 0.2


async def test_a_run_that_never_was_is_not_waited_for(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)
    async with working(app):
        for ask in ("result", "status", "view", "cancel"):
            with pytest.raises(RunNotFound, match="no run 01"):
                await getattr(sleeps.run("01900000-0000-7000-8000-000000000000"), ask)()
        with pytest.raises(RunNotFound):
            await app.run("'; DROP TABLE lineshaft_run; --", sleeps).status()


async def test_a_run_whose_history_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    app = new_app(tmp_path, history=0)
    sleeps = sleeper(app)
    async with working(app):
        run = await sleeps.submit(0, key="k")
        await result_of(run)
        await asyncio.sleep(0.01)
        await app.runtime.store.prune(time.time_ns() // 1000, time.time_ns() // 1000)
        again = await sleeps.submit(0, key="k")
        assert (again.id, again.created) == (run.id, False)
        with pytest.raises(RunNotFound):
            await again.result()


async def test_a_handle_by_id_gives_the_typed_result(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def when() -> set[int]:
        return {1, 2}

    async with working(app):
        run = await when.submit()
        await result_of(run)
        assert await result_of(app.run(run.id, when)) == {1, 2}


async def test_closing_the_app_ends_the_waiting(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)
    async with app:
        run = await sleeps.submit(1)
        here = asyncio.ensure_future(run.result())
        there = asyncio.ensure_future(asyncio.to_thread(run.blocking.result))
        await asyncio.sleep(0.2)
    for waiting in (here, there):
        with pytest.raises(StoreUnavailable, match="closed"):
            await asyncio.wait_for(waiting, PATIENCE_S)


async def test_an_app_may_be_opened_again(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)
    for _ in range(3):
        async with working(app):
            run = await asyncio.to_thread(sleeps.blocking.submit, 0)
            assert await asyncio.to_thread(run.blocking.result, PATIENCE_S) == 0
            assert await result_of(run) == 0


# Cancelling


async def test_what_does_not_run_is_cancelled_at_once(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)
    async with app:
        for options in ({}, {"delay": 60}):
            run = await sleeps.submit(1, **options)
            waiting = asyncio.ensure_future(run.result())
            await asyncio.sleep(0.05)
            assert await run.cancel() is State.CANCELLED
            with pytest.raises(RunCancelled, match=run.id):
                await asyncio.wait_for(waiting, PATIENCE_S)
            assert await run.cancel() is State.CANCELLED


async def test_a_retry_that_waits_is_cancelled(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(retry=Retry(attempts=2, initial=60))
    async def fails() -> None:
        raise ValueError

    async with working(app):
        run = await fails.submit()
        await eventually(lambda: _attempted(run))
        await run.cancel()
        assert isinstance(await error_of(run), RunCancelled)
        assert (await run.view()).attempts == 1


async def _attempted(run: Run[Any]) -> bool:
    return (await run.view()).attempts == 1


@pytest.mark.parametrize("kind", ["async", "thread", "async transaction"])
async def test_what_runs_is_interrupted(tmp_path: Path, kind: str) -> None:
    app = new_app(tmp_path)
    begun, left = threading.Event(), threading.Event()

    if kind == "async":

        @app.task
        async def work() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                left.set()

    elif kind == "thread":

        @app.task
        def work(ctx: Context) -> None:
            begun.set()
            try:
                while True:
                    ctx.progress(1)
                    time.sleep(0.01)
            finally:
                left.set()

    else:

        @app.task
        async def work(tx: AsyncTransaction) -> None:
            begun.set()
            try:
                await asyncio.sleep(1.5)
            finally:
                left.set()

    async with working(app):
        run = await work.submit()
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        state = await run.cancel()
        assert state in {State.RUNNING, State.SUCCEEDED}
        error = None if kind == "async transaction" else await error_of(run)
        assert await asyncio.to_thread(left.wait, PATIENCE_S)
        if error is None:  # the request waited for the writer that the run held
            assert await reaches(run, State.SUCCEEDED, State.CANCELLED)
        else:
            assert isinstance(error, RunCancelled)
            assert await run.status() is State.CANCELLED


async def test_what_has_ended_is_left_as_it_is(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)

    @app.task
    async def fails() -> None:
        raise ValueError

    async with working(app):
        run, failed = await sleeps.submit(0), await fails.submit()
        await result_of(run)
        await error_of(failed)
        assert await run.cancel() is State.SUCCEEDED
        assert await failed.cancel() is State.FAILED
        assert await result_of(run) == 0


async def test_many_cancels_while_runs_start_leave_none_behind(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)
    async with working(app) as worker:
        for _ in range(5):
            runs = await sleeps.submit_many([60] * 50)
            await asyncio.gather(*(run.cancel() for run in runs))
            for run in runs:
                assert isinstance(await error_of(run), RunCancelled)
        await eventually(lambda: worker.in_flight == 0)


# Progress


async def test_progress_is_followed_until_the_end(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    go_on = threading.Event()

    @app.task
    def works(ctx: Context) -> None:
        ctx.progress(1, 3, "one")
        go_on.wait(PATIENCE_S)

    async with working(app):
        run = await works.submit()
        seen = []
        async for progress in run.progress():
            seen.append(progress)
            go_on.set()
        assert seen == [Progress(1, 3, "one")]
        assert await run.status() is State.SUCCEEDED
        assert [progress async for progress in run.progress()] == []


# Synchronous callers


async def test_a_plain_thread_submits_and_waits(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)

    def script() -> Any:
        run = sleeps.blocking.submit(0.01, key="k")
        assert run.blocking.result(timeout=PATIENCE_S) == 0.01
        assert run.blocking.status() is State.SUCCEEDED
        assert run.blocking.cancel() is State.SUCCEEDED
        assert list(run.blocking.progress()) == []
        many = sleeps.blocking.submit_many([0, 0])
        slow = sleeps.blocking.submit(60)
        with pytest.raises(ResultTimeout):
            slow.blocking.result(timeout=0.05)
        slow.blocking.cancel()
        with pytest.raises(RunCancelled):
            slow.blocking.result(timeout=PATIENCE_S)
        return [each.blocking.result(timeout=PATIENCE_S) for each in many]

    async with working(app):
        assert await asyncio.to_thread(script) == [0, 0]


async def test_blocking_inside_a_loop_is_refused(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sleeps = sleeper(app)
    async with app:
        run = await sleeps.submit(0)
        calls: list[Callable[[], Any]] = [
            lambda: sleeps.blocking.submit(0),
            lambda: sleeps.blocking.submit_many([0]),
            run.blocking.result,
            run.blocking.status,
            run.blocking.cancel,
            lambda: next(run.blocking.progress()),
        ]
        for call in calls:
            with pytest.raises(LineshaftError, match=r"runs an event loop.*Await"):
                call()
        gc.collect()


def test_a_script_without_a_loop_works_with_a_worker_elsewhere(tmp_path: Path) -> None:
    script = f"""
from lineshaft import App
from tests.crash.programs import declare_on
app = App("script", store={address(tmp_path)!r})
who = declare_on(app).who
run = who.blocking.submit()
print(run.blocking.result(timeout={PATIENCE_S}))
"""
    with Program(tmp_path, "worker") as program:
        done = subprocess.run(
            [*STRICT, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.stderr == ""
        assert program.process is not None
        assert int(done.stdout) == program.process.pid


async def test_waiting_for_a_run_that_another_process_executes(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    tasks = programs.declare_on(app)
    async with app:
        early = await tasks.who.submit()
        with Program(tmp_path, "worker"):
            pids = await results_of([early, *await tasks.who.submit_many([()] * 20)])
            assert os.getpid() not in pids
            slow = await tasks.slow.submit(60)
            await reaches(slow, State.RUNNING)
            await slow.cancel()
            assert isinstance(await error_of(slow), RunCancelled)


# Submitting many


async def test_many_are_accepted_at_once_or_not_at_all(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def add(one: int, two: int) -> int:
        return one + two

    @app.task
    async def nothing() -> None: ...

    async with working(app):
        assert await results_of(await add.submit_many([(1, 2), [3, 4]])) == [3, 7]
        assert await add.submit_many([]) == []
        assert await results_of(await nothing.submit_many([(), ()])) == [None, None]
        before = await app.runtime.store.counts()
        for items, says in (
            ([(1, 2), (1, "x")], "integer"),
            ([(1, 2), (1,)], "missing"),
            ([5], "2 arguments.*tuple"),
            (["ab"], "2 arguments.*tuple"),
        ):
            with pytest.raises(LineshaftError, match=says):
                await add.submit_many(items)
        assert await app.runtime.store.counts() == before


async def test_keys_inside_one_submission_are_one_run(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def echo(number: int) -> int:
        return number

    async with working(app):
        runs = await echo.submit_many([1, 2, 1], key=lambda number: f"n{number}")
        assert [run.created for run in runs] == [True, True, False]
        assert runs[0].id == runs[2].id
        assert await results_of(runs) == [1, 2, 1]


async def test_a_failure_is_told_to_who_waits_with_its_reason(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def fails() -> None:
        raise LookupError("no such order")

    async with working(app):
        run = await fails.submit()
        error = await error_of(run)
        assert isinstance(error, RunFailed)
        assert "LookupError: no such order" in str(error)
        assert f"lineshaft runs show {run.id}" in str(error)
        view = await run.view()
        assert "raise LookupError" in view.failure.traceback


# Growth


def script_of(app: App, work: Task[Any, Any]) -> Callable[[], Any]:
    async def main() -> None:
        async with app.worker():
            await results_of(await work.submit_many(range(5)))
        # The app is not closed: the module that declares it outlives every loop.

    return lambda: asyncio.run(main())


def test_one_loop_after_another_leaves_nothing_open(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def work(number: int) -> int:
        return number

    run = script_of(app, work)
    run()
    run()
    process = psutil.Process()
    gc.collect()
    before = process.num_fds(), threading.active_count()
    for _ in range(10):
        run()
    gc.collect()
    after = process.num_fds(), threading.active_count()
    asyncio.run(app.close())
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 1


@pytest.mark.parametrize("kind", ["async", "thread", "transaction", "batch", "failing"])
async def test_five_thousand_runs_leave_nothing_behind(tmp_path: Path, kind: str) -> None:
    app = new_app(tmp_path)
    count = 5_000 if kind == "async" else 500
    if kind in {"async", "failing"}:

        @app.task
        async def work(number: int, ctx: Context) -> int:
            ctx.progress(number)
            if kind == "failing":
                raise ValueError
            return number

    elif kind == "thread":

        @app.task
        def work(number: int) -> int:
            return number

    elif kind == "transaction":

        @app.task
        def work(number: int, tx: Transaction) -> int:
            _ = tx.session
            return number

    else:

        @app.task(batch=100)
        async def work(numbers: list[int]) -> list[int]:
            return numbers

    threads_before = threads()
    tasks_before = asyncio.all_tasks()
    fds_before = psutil.Process().num_fds()
    async with working(app) as worker:
        runs = await work.submit_many(range(count))
        outcomes = await asyncio.gather(
            *(run.result(timeout=PATIENCE_S) for run in runs), return_exceptions=True
        )
        if kind == "failing":
            assert all(isinstance(outcome, RunFailed) for outcome in outcomes)
        else:
            assert outcomes == list(range(count))
        waiters = app.runtime.waiters()
        assert not waiters._waiting
        assert not worker._in_flight
        assert worker._room.in_flight == 0
        assert not worker._settler._gathered
        assert not worker._batching._gathered
        assert not worker._batching._timers
        assert not worker._transacting._waiting
        assert worker.done == count
        await eventually(lambda: not worker._progress)
        assert len(worker._execution.background._tasks) == 0
    await eventually(lambda: asyncio.all_tasks() == tasks_before, "no task of ours")
    await eventually(lambda: threads() <= threads_before | {"lineshaft-portal"}, f"{threads()}")
    gc.collect()
    # The lock file of live workers stays open for good: closing any descriptor of it would drop the locks.
    assert psutil.Process().num_fds() <= fds_before + 1


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio")}


async def test_errors_of_the_store_reach_the_submitter(tmp_path: Path) -> None:
    app = App("test", store=f"sqlite:///{tmp_path}/no/such/folder/store.db")

    @app.task
    async def work() -> None: ...

    with pytest.raises(StoreError, match="no directory"):
        await work.submit()
    (tmp_path / "text.db").write_text("not a database at all, but some text" * 100)
    other = App("test", store=f"sqlite:///{tmp_path}/text.db")
    with pytest.raises(StoreError, match="not a SQLite database"):
        await other.__aenter__()
