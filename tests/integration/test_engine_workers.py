"""The life of a worker: drains, leases, parked runs, neighbours; FAILURES rows 2, 5, 8, 29, 35, 38, 41, 42."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lineshaft import (
    App,
    Concurrency,
    Context,
    InvalidSetting,
    Limit,
    RunCancelled,
    RunOutcomeUnknown,
    State,
    Task,
    Transaction,
)
from lineshaft.core.errors import RunCrashed
from tests.crash import programs
from tests.support import (
    PATIENCE_S,
    Program,
    error_of,
    eventually,
    new_app,
    reaches,
    result_of,
    results_of,
    rows,
    working,
)


def ledger(app: App) -> None:
    connection = app.connect()
    connection.execute("CREATE TABLE IF NOT EXISTS ledger (run TEXT, number INTEGER)")
    connection.close()


def lines(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


# Drains in one process


async def test_what_ends_within_the_grace_succeeds(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    begun: list[str] = []

    @app.task
    async def on_loop() -> str:
        begun.append("on_loop")
        await asyncio.sleep(0.3)
        return "done"

    @app.task
    def in_thread() -> str:
        begun.append("in_thread")
        time.sleep(0.3)
        return "done"

    @app.task
    def in_transaction(tx: Transaction) -> str:
        begun.append("in_transaction")
        time.sleep(0.3)
        return "done"

    @app.task(batch=5)
    async def in_batch(numbers: list[int]) -> list[str]:
        begun.append("in_batch")
        await asyncio.sleep(0.3)
        return ["done"] * len(numbers)

    async with app:
        async with app.worker(grace=PATIENCE_S):
            runs = [await task.submit() for task in (on_loop, in_thread, in_transaction)]
            runs.append(await in_batch.submit(1))
            await eventually(lambda: len(begun) == 4)
        for run in runs:
            assert await run.result(timeout=0) == "done"


@pytest.mark.parametrize("kind", ["async", "thread", "deaf thread", "deaf async"])
async def test_what_outlasts_the_grace_is_handed_back_uncharged(tmp_path: Path, kind: str) -> None:
    app = new_app(tmp_path)
    stop, begun = threading.Event(), threading.Event()
    attempts: list[int] = []

    if kind == "async":

        @app.task
        async def work(ctx: Context) -> int:
            attempts.append(ctx.attempt)
            begun.set()
            if not stop.is_set():
                await asyncio.sleep(600)
            return ctx.attempt

    elif kind == "deaf async":

        @app.task
        async def work(ctx: Context) -> int:
            attempts.append(ctx.attempt)
            begun.set()
            while not stop.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue
            return ctx.attempt

    else:

        @app.task
        def work(ctx: Context) -> int:
            attempts.append(ctx.attempt)
            begun.set()
            while not stop.wait(0.01):
                if kind == "thread":
                    ctx.heartbeat()
            return ctx.attempt

    async with app:
        async with app.worker(grace=0.1):
            run = await work.submit()
            assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        view = await run.view()
        assert (view.state, view.attempts, view.crashes, view.suspect) == (State.READY, 0, 0, None)
        stop.set()
        async with app.worker():
            assert await result_of(run) == 1
    assert attempts == [1, 1]


async def test_what_has_not_begun_is_handed_back_at_once(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    stop = threading.Event()
    began: list[int] = []

    @app.task
    def in_transaction(number: int, tx: Transaction) -> int:
        began.append(number)
        if number == 0:
            stop.wait(0.5)
        return number

    async with app:
        runs = await in_transaction.submit_many(range(200))
        async with app.worker(grace=PATIENCE_S):
            await eventually(lambda: began)
        states = {(await run.view()).state for run in runs}
        attempts = [(await run.view()).attempts for run in runs]
        assert State.RUNNING not in states
        assert states == {State.SUCCEEDED, State.READY}, "the group that had begun, and the rest"
        assert sum(attempts) == len(began)


async def test_a_worker_stopped_at_once_leaves_everything_as_it_was(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def work(number: int) -> int:
        return number

    async with app:
        runs = await work.submit_many(range(2_000))
        started_s = time.monotonic()
        for _ in range(5):
            async with app.worker(grace=PATIENCE_S):
                await asyncio.sleep(0)
        assert time.monotonic() - started_s < PATIENCE_S, "no drain waited for what never began"
        assert {(await run.view()).state for run in runs[::97]} <= {State.READY, State.SUCCEEDED}
        async with app.worker():
            assert await results_of(runs) == list(range(2_000))
            assert [(await run.view()).attempts for run in runs[::97]] == [1] * len(runs[::97])


async def test_a_restarted_worker_goes_on(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def work(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    async with app:
        runs = await work.submit_many(range(300))
        for _ in range(3):
            async with app.worker(grace=0):
                await asyncio.sleep(0.02)
        async with app.worker():
            assert await results_of(runs) == list(range(300))
        assert await app.runtime.store.workers() == []


async def test_two_workers_in_one_process_share_the_work(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    calls: list[int] = []

    @app.task
    async def work(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0.005)
        return number

    few = Concurrency(on_loop=5)
    async with app, app.worker(concurrency=few) as one, app.worker(concurrency=few) as two:
        assert one.id != two.id
        assert await results_of(await work.submit_many(range(200))) == list(range(200))
        assert one.done + two.done == 200
        assert one.done > 0
        assert two.done > 0
    assert sorted(calls) == list(range(200))


@pytest.mark.parametrize("lease", [0.5, 0, -1, "2h", "soon"])
async def test_an_absurd_lease_is_refused(tmp_path: Path, lease: Any) -> None:
    app = new_app(tmp_path)
    with pytest.raises(InvalidSetting, match="lease"):
        async with app.worker(lease=lease):
            pass


# Parked


def versioned(app: App, version: str, hint: Any) -> Task[Any, Any]:
    async def work(value: Any) -> str:
        return f"{version} {value!r}"

    work.__annotations__ = {"value": hint, "return": str}
    return app.task(name="work", version=version)(work)


async def test_an_unknown_task_or_version_is_parked_until_code_comes(tmp_path: Path) -> None:
    new, old = new_app(tmp_path), new_app(tmp_path)
    versioned(old, "1", int)
    work = versioned(new, "2", int)

    @new.task(name="other")
    async def other() -> str:
        return "other"

    async with old, new:
        async with old.worker(lease=1):
            runs = [await work.submit(5), await other.submit()]
            for run in runs:
                await reaches(run, State.PARKED)
        async with new.worker(lease=1):
            assert await results_of(runs) == ["2 5", "other"]
            assert [(await run.view()).attempts for run in runs] == [1, 1]


async def test_arguments_that_the_present_code_refuses_are_parked_until_other_code_comes(
    tmp_path: Path,
) -> None:
    one, two, three = (new_app(tmp_path) for _ in range(3))
    sent = versioned(one, "1", int)
    versioned(two, "1", str)
    versioned(three, "1", int | str)
    async with one, two, three:
        run = await sent.submit(5)
        async with two.worker(lease=1):
            await reaches(run, State.PARKED)
            view = await run.view()
            assert view.attempts == 0
            assert "string" in view.failure.message
            await asyncio.sleep(0.5)
            assert await run.status() is State.PARKED, "not taken again and again by the code that refuses it"
            cancelled = await sent.submit(6)
            await reaches(cancelled, State.PARKED)
            assert await cancelled.cancel() is State.CANCELLED
            assert isinstance(await error_of(cancelled), RunCancelled)
        async with three.worker():
            assert await result_of(run) == "1 5"


async def test_a_limit_keeps_its_slots_while_runs_are_parked(tmp_path: Path) -> None:
    one, two = new_app(tmp_path), new_app(tmp_path)

    @one.task(name="work", limits=[Limit(1)])
    async def sent(value: int) -> None: ...

    @two.task(name="work", limits=[Limit(1)])
    async def work(value: str) -> str:
        return value

    async with one, two, two.worker():
        refused = [await sent.submit(n) for n in range(3)]
        for run in refused:
            await reaches(run, State.PARKED)
        assert await result_of(await work.submit("fine")) == "fine"


# Processes


async def test_sigterm_drains_and_the_process_ends(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    tasks = programs.declare_on(app)
    async with app:
        with Program(tmp_path, "worker", "10", "20") as program:
            quick = await tasks.slow.submit(0.5)
            await reaches(quick, State.RUNNING)
            await eventually(lambda: lines(tmp_path, "slow.txt"))
            program.send(signal.SIGTERM)
            assert await asyncio.to_thread(program.wait) == 0, program.log
        assert await quick.result(timeout=0) == program.process.pid  # type: ignore[union-attr]
        assert await app.runtime.store.workers() == []


@pytest.mark.parametrize("kind", ["slow", "slow_thread"])
async def test_sigterm_hands_back_what_outlasts_it_and_hung_threads_do_not_keep_the_process(
    tmp_path: Path, kind: str
) -> None:
    app = new_app(tmp_path)
    tasks = programs.declare_on(app)
    async with app:
        with Program(tmp_path, "worker", "10", "0.2") as program:
            run = await getattr(tasks, kind).submit(600)
            await eventually(lambda: lines(tmp_path, "slow.txt"))
            program.send(signal.SIGTERM)
            assert await asyncio.to_thread(program.wait) == 0, program.log
        view = await run.view()
        if (
            kind == "slow_transaction"
        ):  # held the writer for too long; that is its own failure, if there was time
            assert view.state in {State.READY, State.FAILED}
        else:
            assert (view.state, view.attempts, view.crashes) == (State.READY, 0, 0)
        assert await app.runtime.store.workers() == []


async def test_a_worker_killed_in_at_most_once_work_leaves_an_unknown_outcome(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    tasks = programs.declare_on(app)
    async with app:
        run = await tasks.once.submit(True)
        with Program(tmp_path, "worker", "1") as first:
            assert await asyncio.to_thread(first.wait) == -signal.SIGKILL
        fine = await tasks.once.submit(False)
        with Program(tmp_path, "worker", "1"):
            error = await error_of(run)
            assert isinstance(error, RunOutcomeUnknown)
            assert "may or may not have happened" in str(error)
            assert await result_of(fine) == "done"
    assert len(lines(tmp_path, "once.txt")) == 2


@pytest.mark.parametrize(("kind", "around", "crashes"), [("killer", 50, 1), ("killer_thread", 7, 3)])
async def test_a_killer_among_neighbours_is_found_and_they_are_not_charged(
    tmp_path: Path, kind: str, around: int, crashes: int
) -> None:
    app = new_app(tmp_path)
    tasks = programs.declare_on(app)
    meek = tasks.meek if kind == "killer" else tasks.meek_thread
    async with app:
        neighbours = await meek.submit_many(range(around))
        killer = await getattr(tasks, kind).submit()
        neighbours += await meek.submit_many(range(around, around * 2))
        program = Program(tmp_path, "worker", "1", "5", str(crashes)).start()
        starts = 1
        try:
            while not await _ended(killer):
                if not program.alive:
                    program.start()
                    starts += 1
                await asyncio.sleep(0.05)
            if not program.alive:
                program.start()
            assert await results_of(neighbours) == list(range(around * 2))
        finally:
            program.kill()
        error = await error_of(killer)
        assert isinstance(error, RunCrashed)
        view = await killer.view()
        assert (view.state, view.failure.kind, view.crashes) == (State.FAILED, "crash", crashes + 1)
        assert starts <= 8 + crashes, "halvings, and the times it is tried alone"
        for run in neighbours:
            seen = await run.view()
            assert (seen.state, seen.attempts, seen.crashes) == (State.SUCCEEDED, 1, 0)


async def _ended(run: Any) -> bool:
    return (await run.status()) in {State.FAILED, State.SUCCEEDED}


async def test_a_worker_stopped_past_its_lease_is_fenced(tmp_path: Path) -> None:
    """It wakes with claimed runs of which the bodies have yet to write; another worker wrote them meanwhile."""
    app = new_app(tmp_path)
    ledger(app)
    tasks = programs.declare_on(app)
    async with app:
        with Program(tmp_path, "worker", "1") as first:
            runs = await tasks.book_late.submit_many(range(20))  # gathers for a second and a half
            for run in runs:
                await reaches(run, State.RUNNING)
            await first.stop()
            with Program(tmp_path, "worker", "1") as second:
                assert await results_of(runs) == list(range(20))
                first.send(signal.SIGCONT)
                assert await result_of(await tasks.who.submit())
                await eventually(lambda: "lost its lease" in first.log)
                found = rows(app, "SELECT number, run FROM ledger ORDER BY number")
                assert second.process is not None
                assert found == [(n, f"late-{second.process.pid}") for n in range(20)]
                await asyncio.sleep(0.5)
                assert rows(app, "SELECT count(*) FROM ledger") == [(20,)]
                second.kill()
            # The first goes on as a new incarnation.
            assert first.process is not None
            assert await result_of(await tasks.who.submit()) == first.process.pid


async def test_a_run_goes_on_with_a_second_worker_while_the_first_is_stopped(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    tasks = programs.declare_on(app)
    async with app:
        with Program(tmp_path, "worker", "1") as first:
            run = await tasks.slow.submit(1)
            await eventually(lambda: lines(tmp_path, "slow.txt"))
            await first.stop()
            with Program(tmp_path, "worker", "1") as second:
                assert second.process is not None
                assert await result_of(run) == second.process.pid
                first.send(signal.SIGCONT)
                await asyncio.sleep(0.3)
                assert await result_of(run) == second.process.pid, "the first one's outcome is not kept"


async def test_slots_of_a_killed_worker_come_back(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    tasks = programs.declare_on(app)
    async with app:
        with Program(tmp_path, "worker", "1") as first:
            runs = await tasks.limited.submit_many([("a", 60), ("a", 60)])
            for run in runs:
                await reaches(run, State.RUNNING)
            first.kill()
        for run in runs:
            await run.cancel()
        after = await tasks.limited.submit("a", 0.01)
        with Program(tmp_path, "worker", "1"):
            for run in runs:
                assert isinstance(await error_of(run), RunCancelled)
            await result_of(after)


async def test_a_cancel_asked_for_while_nobody_lives_is_kept(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    tasks = programs.declare_on(app)
    async with app:
        with Program(tmp_path, "worker", "1") as first:
            run = await tasks.slow.submit(60)
            await eventually(lambda: lines(tmp_path, "slow.txt"))
            first.kill()
        assert await run.cancel() is State.RUNNING
        async with working(app):
            assert isinstance(await error_of(run), RunCancelled)
