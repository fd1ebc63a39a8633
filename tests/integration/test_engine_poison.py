"""Whatever a function does, its own run ends badly, clearly, and the worker goes on (FAILURES row 37)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lineshaft import (
    App,
    AsyncTransaction,
    Context,
    LineshaftError,
    Retry,
    RunCancelled,
    RunCrashed,
    RunFailed,
    RunTimedOut,
    State,
    Task,
    Transaction,
)
from lineshaft.core import bounds
from tests import pool_tasks
from tests.support import (
    PATIENCE_S,
    address,
    error_of,
    eventually,
    new_app,
    reaches,
    result_of,
    results_of,
    working,
)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class UnprintableExit(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class NoString(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is the fault


class Own(BaseException):
    pass


def chain(depth: int) -> Exception:
    error: Exception = ValueError("first")
    for number in range(depth):
        other = ValueError(number)
        other.__cause__ = error
        error = other
    return error


def circle() -> Exception:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    return one


ERRORS: list[Callable[[], BaseException]] = [
    Unprintable,
    UnprintableExit,
    NoString,
    lambda: ValueError("x" * 5_000_000),
    lambda: ValueError("nul \0 and lone \ud800 surrogate"),
    lambda: ValueError(b"\xff"),
    lambda: type("Odd\N{SNOWMAN}", (Exception,), {"__module__": "lone \ud800"})("odd"),
    ValueError,
    lambda: SystemExit(3),
    KeyboardInterrupt,
    GeneratorExit,
    lambda: StopIteration(1),
    StopAsyncIteration,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    concurrent.futures.TimeoutError,
    lambda: Own("base"),
    lambda: ExceptionGroup("many", [ValueError(n) for n in range(1000)]),
    lambda: BaseExceptionGroup("base", [KeyboardInterrupt(), Own()]),
    MemoryError,
    RecursionError,
    lambda: chain(2_000),
    circle,
    lambda: RunCancelled("of some other run"),
    lambda: LineshaftError("ours"),
]


def fail(number: int) -> None:
    error = ERRORS[number]()
    raise error


def raising(app: App, kind: str) -> Task[Any, Any]:  # noqa: C901 - a list of small functions
    if kind == "async":

        @app.task(name="raises")
        async def on_loop(number: int) -> None:
            fail(number)

        return on_loop
    if kind == "async, later":

        @app.task(name="raises")
        async def later(number: int) -> None:
            await asyncio.sleep(0.001)
            fail(number)

        return later
    if kind == "thread":

        @app.task(name="raises")
        def in_thread(number: int) -> None:
            fail(number)

        return in_thread
    if kind == "transaction":

        @app.task(name="raises")
        def in_transaction(number: int, tx: Transaction) -> None:
            fail(number)

        return in_transaction
    if kind == "async transaction":

        @app.task(name="raises")
        async def in_async(number: int, tx: AsyncTransaction) -> None:
            fail(number)

        return in_async
    if kind == "batch":

        @app.task(name="raises", batch=1)
        def in_batch(numbers: list[int]) -> None:
            fail(numbers[0])

        return in_batch
    if kind == "async batch":

        @app.task(name="raises", batch=1)
        async def in_async_batch(numbers: list[int]) -> None:
            fail(numbers[0])

        return in_async_batch

    @app.task(name="raises", batch=1)
    def in_batch_transaction(numbers: list[int], tx: Transaction) -> None:
        fail(numbers[0])

    return in_batch_transaction


@pytest.mark.parametrize(
    "kind",
    [
        "async",
        "async, later",
        "thread",
        "transaction",
        "async transaction",
        "batch",
        "async batch",
        "batch transaction",
    ],
)
async def test_whatever_is_raised_fails_its_own_run_alone(tmp_path: Path, kind: str) -> None:
    app = new_app(tmp_path)
    raises = raising(app, kind)

    @app.task
    async def fine(number: int) -> int:
        return number

    async with working(app) as worker:
        poisoned = await raises.submit_many(range(len(ERRORS)))
        neighbours = await fine.submit_many(range(20))
        for run, make in zip(poisoned, ERRORS, strict=True):
            error = await error_of(run)
            assert isinstance(error, RunFailed), (make(), error)
            view = await run.view()
            assert view.failure is not None
            assert view.attempts == 1
            assert len(view.failure.message) <= bounds.ERROR_TEXT_CHARS_MAX + 20
            assert "\0" not in view.failure.message + view.failure.traceback
        assert await results_of(neighbours) == list(range(20))
        assert worker.in_flight == 0


def deep() -> Any:
    value: Any = []
    for _ in range(5_000):
        value = [value]
    return value


def own_circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


class Lies:
    def __eq__(self, other: object) -> bool:
        raise SystemError("no comparing")

    __hash__ = None  # type: ignore[assignment]


RESULTS: list[Callable[[], Any]] = [
    object,
    Lies,
    lambda: {1, object()},
    lambda: math.nan,
    lambda: math.inf,
    lambda: "\ud800",
    lambda: {1: "int keys"},
    lambda: (1, 2),
    lambda: (n for n in range(3)),
    lambda: "x" * (bounds.PAYLOAD_BYTES_MAX + 1),
    deep,
    own_circle,
    lambda: b"\xff",
    lambda: sys,
    lambda: ValueError("returned, not raised"),
    asyncio.Event,
    lambda: 1j,
]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_result_that_cannot_be_kept_fails_its_run_and_says_why(tmp_path: Path, kind: str) -> None:
    app = new_app(tmp_path)
    if kind == "async":

        @app.task
        async def returns(number: int):
            return RESULTS[number]()

    else:

        @app.task
        def returns(number: int):
            return RESULTS[number]()

    async with working(app):
        for number, run in enumerate(await returns.submit_many(range(len(RESULTS)))):
            error = await error_of(run)
            assert isinstance(error, RunFailed), number
            view = await run.view()
            assert view.failure is not None
            assert view.failure.kind == "result", (number, view.failure)
            assert "result of task" in str(error).lower(), error


async def test_a_result_that_does_not_fit_its_hint_fails(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def lies() -> int:
        return "five"  # type: ignore[return-value]

    async with working(app):
        error = await error_of(await lies.submit())
        assert "integer" in str(error)
        assert "'five'" in str(error)


# Cancelling and swallowing


async def test_a_task_that_cancels_itself_fails(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def suicidal() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async with working(app) as worker:
        assert isinstance(await error_of(await suicidal.submit()), RunFailed)
        assert worker.in_flight == 0


async def test_a_task_that_cancels_itself_and_returns_succeeds(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def undecided() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 1

    async with working(app):
        assert await result_of(await undecided.submit()) == 1


async def test_a_task_that_swallows_its_cancellation_is_what_it_becomes(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    begun = asyncio.Event()

    @app.task
    async def stubborn() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "went on"
        return "slept"

    async with working(app):
        run = await stubborn.submit()
        await begun.wait()
        await run.cancel()
        assert await result_of(run) == "went on"


async def test_a_task_that_swallows_its_timeout_and_goes_on_holds_up_nobody(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    stop, cancelled = asyncio.Event(), asyncio.Event()

    @app.task(timeout=0.1)
    async def stubborn() -> str:
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), 60)
            except asyncio.CancelledError:
                cancelled.set()
        return "late"

    @app.task
    async def fine() -> int:
        return 1

    async with working(app):
        run = await stubborn.submit()
        await asyncio.wait_for(cancelled.wait(), PATIENCE_S)
        assert await result_of(await fine.submit()) == 1
        stop.set()
        assert await result_of(run) == "late"


async def test_background_tasks_that_are_left_behind_hurt_nobody(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    left: list[asyncio.Task[Any]] = []

    @app.task
    async def leaves(number: int) -> int:
        async def fails() -> None:
            await asyncio.sleep(0.01)
            raise ValueError("nobody looks")

        left.append(asyncio.get_running_loop().create_task(fails()))
        return number

    async with working(app):
        assert await results_of(await leaves.submit_many(range(10))) == list(range(10))
        await asyncio.wait(left)
        assert await result_of(await leaves.submit(11)) == 11
    for task in left:
        with pytest.raises(ValueError, match="nobody looks"):
            await task


async def test_a_cancelled_result_of_another_run_fails_the_one_that_waits(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def child() -> None:
        await asyncio.sleep(60)

    @app.task
    async def parent() -> None:
        run = await child.submit()
        await run.cancel()
        await run.result()

    async with working(app):
        run = await parent.submit()
        error = await error_of(run)
        assert isinstance(error, RunFailed)
        assert "RunCancelled" in str(error)
        assert await run.status() is State.FAILED


# The loop


async def test_a_blocked_loop_loses_its_lease_and_the_worker_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app(tmp_path)
    blocked = []

    @app.task
    async def blocks() -> str:
        blocked.append(1)
        if len(blocked) == 1:
            time.sleep(2.5)  # noqa: ASYNC251 - that is the fault
        return "done"

    @app.task
    async def waits(number: int) -> int:
        await asyncio.sleep(0.3)
        return number

    async with app, app.worker(lease=1) as worker:
        before = worker.id
        neighbours = await waits.submit_many(range(5))
        run = await blocks.submit()
        assert await result_of(run) == "done"
        assert await results_of(neighbours) == list(range(5))
        await eventually(lambda: worker.id != before)
        assert await result_of(await waits.submit(7)) == 7
        assert all([(await neighbour.view()).state is State.SUCCEEDED for neighbour in neighbours])
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert any("has been blocked" in message for message in messages)
    assert any("lost its lease" in message for message in messages)


async def test_an_attempt_that_outlives_its_lease_does_not_disturb_its_successor(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    attempts: list[asyncio.Event] = []

    @app.task
    async def stubborn() -> int:
        mine = asyncio.Event()
        attempts.append(mine)
        number = len(attempts)
        while not mine.is_set():
            try:
                await asyncio.wait_for(mine.wait(), 60)
            except asyncio.CancelledError:
                continue
        return number

    async with app, app.worker(lease=10) as worker:
        run = await stubborn.submit()
        await eventually(lambda: len(attempts) == 1)
        # Somebody swept this worker though it lives: its lease was over.
        connection = app.connect()
        connection.execute("UPDATE lineshaft_worker SET expires_boot_us = 0")
        connection.close()
        await app.runtime.store.rescue(time.time_ns() // 1000)
        worker._lease_lost()
        await eventually(lambda: len(attempts) == 2)
        attempts[0].set()
        await asyncio.sleep(0.2)
        assert worker.in_flight == 1, "the second attempt"
        await run.cancel()
        attempts[1].set()
        assert await result_of(run) == 2
        await eventually(lambda: worker.in_flight == 0)
        assert worker._room.in_flight == 0


# Progress


@pytest.mark.parametrize("done", [math.nan, math.inf, 10**400, "x", None, object()])
async def test_progress_that_is_no_number_fails_the_run_that_tells_it(tmp_path: Path, done: Any) -> None:
    app = new_app(tmp_path)

    @app.task
    async def tells(ctx: Context) -> None:
        ctx.progress(done)

    async with working(app):
        assert isinstance(await error_of(await tells.submit()), RunFailed)


async def test_odd_text_in_progress_stops_nobody_elses(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    stop = asyncio.Event()

    @app.task
    async def tells(message: str, ctx: Context) -> None:
        ctx.progress(1, 2, "\ud800\0" if message == "odd" else message)
        await stop.wait()

    async with working(app):
        runs = [await tells.submit("odd"), await tells.submit("plain")]
        for run in runs:
            async for progress in run.progress():
                assert (progress.done, progress.total) == (1, 2)
                break
        stop.set()
        await results_of(runs)


# Arguments that the present code refuses are in test_engine_workers.py. Pool children:


@pytest.fixture
def pool_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setenv("LINESHAFT_STORE", address(tmp_path))
    return pool_tasks.app


async def test_what_a_pool_child_does_ends_its_own_run_alone(pool_app: App) -> None:
    expected: dict[str, tuple[type[Exception], str]] = {
        "exit": (RunFailed, "SystemExit"),
        "interrupt": (RunFailed, "KeyboardInterrupt"),
        "raise": (RunFailed, "ValueError: no"),
        "unprintable": (RunFailed, "Unprintable"),
        "object": (RunFailed, "result of task"),
        "large": (RunFailed, "bytes"),
        "kill": (RunCrashed, "SIGKILL"),
        "_exit": (RunCrashed, "exit code 7"),
    }
    async with working(pool_app):
        runs = {what: await pool_tasks.misbehaves.submit(what) for what in expected}
        fine = await pool_tasks.double.submit_many(range(10))
        for what, (kind, says) in expected.items():
            error = await error_of(runs[what])
            assert type(error) is kind, (what, error)
            assert says in str(error), (what, error)
        assert await results_of(fine) == [n * 2 for n in range(10)]


async def test_a_pool_task_times_out_retries_and_is_cancelled(pool_app: App) -> None:
    async with working(pool_app):
        late = await pool_tasks.sleeps_briefly_allowed.submit(60)
        assert isinstance(await error_of(late), RunTimedOut)
        again = await pool_tasks.dies_once.submit(str(Path(pool_app.store_address[10:]).with_suffix(".mark")))
        assert await result_of(again) == 2
        assert (await again.view()).attempts == 2
        long = await pool_tasks.sleeps.submit(60)
        await reaches(long, State.RUNNING)
        await asyncio.sleep(0.3)
        await long.cancel()
        assert isinstance(await error_of(long), RunCancelled)
        view = await again.view()
        assert view.cpu_us > 0


async def test_a_pool_task_knows_its_run(pool_app: App) -> None:
    async with working(pool_app):
        run = await pool_tasks.knows.submit(tenant="acme")
        assert await result_of(run) == [run.id, "acme", 1, run.id]
        progress = await error_of(await pool_tasks.reports.submit())
        assert "reports no progress" in str(progress)


async def test_a_retry_policy_knows_errors_of_a_pool_child(pool_app: App) -> None:
    async with working(pool_app):
        run = await pool_tasks.raises_lookup.submit()
        assert isinstance(await error_of(run), RunFailed)
        assert (await run.view()).attempts == 3
    assert pool_tasks.raises_lookup.declaration.retry == Retry(attempts=3, initial=0, on=(LookupError,))
    assert threading.active_count() < 50
