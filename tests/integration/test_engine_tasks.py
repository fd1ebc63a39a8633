"""Tasks through the public surface: retry, timeout, order, time, keys, tenants, context, round trip."""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from lineshaft import (
    App,
    AsyncTransaction,
    Concurrency,
    Context,
    InvalidArguments,
    KeyReused,
    LineshaftError,
    Retry,
    RunCancelled,
    RunFailed,
    RunOutcomeUnknown,
    RunTimedOut,
    State,
    Task,
)
from lineshaft.core.errors import StoreUnavailable
from lineshaft.core.host import Host
from lineshaft.core.ident import SystemChance
from lineshaft.store.values import RunFilter
from tests.support import PATIENCE_S, error_of, eventually, new_app, result_of, results_of, working

NOW = Retry(attempts=3, initial=0)
"""Three attempts without a pause between them."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = 7


class Line(BaseModel):
    sku: str
    price: Decimal


@dataclass(frozen=True)
class Point:
    x: float
    y: int = 0


class Order(BaseModel):
    id: uuid.UUID
    lines: list[Line]
    placed: datetime
    colour: Colour
    point: Point | None = None
    tags: set[str] = set()


# Functions of both kinds


async def test_async_and_sync_functions_execute_alike(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def on_loop(number: int) -> str:
        return f"{number} {threading.current_thread() is threading.main_thread()}"

    @app.task
    def in_thread(number: int) -> str:
        return f"{number} {threading.current_thread() is threading.main_thread()}"

    async with working(app):
        assert await result_of(await on_loop.submit(1)) == "1 True"
        assert await result_of(await in_thread.submit(number=2)) == "2 False"


async def test_a_task_stays_a_function() -> None:
    app = App("unopened", store="sqlite:////nowhere/at/all.db")

    @app.task(retry=NOW)
    async def double(number: int) -> int:
        """Twice."""
        return number * 2

    assert await double(4) == 8
    assert double.__doc__ == "Twice."
    assert not app.runtime.is_open


# Round trip

VALUES: list[tuple[Any, Any]] = [
    (Order, Order(
        id=uuid.UUID(int=7), lines=[Line(sku="é\N{SNOWMAN}\0", price=Decimal("1.10"))],
        placed=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), colour=Colour.BLUE, point=Point(0.1), tags={"b", "a"},
    )),
    (Point, Point(1e300, -(2**70))),
    (datetime, datetime(2026, 3, 29, 2, 30, 0, 1)),  # noqa: DTZ001 - one without a zone stays so
    (timedelta, timedelta(days=-3, microseconds=1)),
    (date, date(1, 1, 1)),
    (Decimal, Decimal("0.100000000000000000000000001")),
    (bytes, bytes(range(256))),
    (uuid.UUID, uuid.UUID(int=2**128 - 1)),
    (Colour, Colour.RED),
    (int | str, "5"),
    (int | str, 5),
    (Line | Point, Point(2.0)),
    (Literal["a", 3], 3),
    (dict[str, list[Decimal | None]], {"": [None, Decimal(0)]}),
    (tuple[int, str], (1, "x")),
    (frozenset[int], frozenset({3, 1})),
    (str, "x" * 500_000),
    (list[int], list(range(20_000))),
    (None, None),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_arguments_and_results_come_back_exactly(tmp_path: Path, kind: str) -> None:
    app = new_app(tmp_path)
    tasks = []
    for position, (hint, _) in enumerate(VALUES):

        async def echo_async(value: Any) -> Any:
            return value

        def echo(value: Any) -> Any:
            return value

        function: Any = echo_async if kind == "async" else echo
        function.__annotations__ = {"value": hint, "return": hint}
        tasks.append(app.task(name=f"echo-{position}")(function))

    async with working(app):
        runs = [await task.submit(value) for task, (_, value) in zip(tasks, VALUES, strict=True)]
        for run, (_, value) in zip(runs, VALUES, strict=True):
            found = await result_of(run)
            assert (type(found), found) == (type(value), value)


async def test_each_attempt_gets_arguments_of_its_own(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    seen = []

    @app.task(retry=NOW)
    async def spoils(items: list[int], more: list[int] = []) -> None:  # noqa: B006 - that is the point
        seen.append((items.copy(), more.copy()))
        items.append(99)
        more.append(99)
        raise ValueError

    async with working(app):
        await error_of(await spoils.submit([1]))
    assert seen == [([1], [])] * 3


# Retry


async def test_nothing_is_retried_unless_declared(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    calls = []

    @app.task
    async def fails() -> None:
        calls.append(1)
        raise ValueError("no")

    async with working(app):
        run = await fails.submit()
        error = await error_of(run)
        assert isinstance(error, RunFailed)
        assert "builtins.ValueError: no" in str(error)
        assert run.id in str(error)
        view = await run.view()
        assert (view.attempts, view.state) == (1, State.FAILED)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("retry", "error", "calls"),
    [
        (Retry(attempts=4, initial=0), ValueError, 4),
        (Retry(attempts=1), ValueError, 1),
        (Retry(attempts=3, initial=0, on=(LookupError,)), ValueError, 1),
        (Retry(attempts=3, initial=0, on=(LookupError,)), KeyError, 3),
        (Retry(attempts=3, initial=0, never=(LookupError,)), KeyError, 1),
        (Retry(attempts=3, initial=0, on=(LookupError,), never=(IndexError,)), IndexError, 1),
        (Retry(attempts=3, initial=0, on=[KeyError]), KeyError, 3),  # type: ignore[arg-type]
        (Retry(attempts=3, initial=0, on=KeyError), KeyError, 3),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("kind", ["async", "thread", "batch"])
async def test_a_policy_says_what_is_retried(
    tmp_path: Path, retry: Retry, error: type[Exception], calls: int, kind: str
) -> None:
    app = new_app(tmp_path)
    attempts = []

    if kind == "async":

        @app.task(retry=retry)
        async def fails(number: int, ctx: Context) -> None:
            attempts.append(ctx.attempt)
            raise error("no")

    elif kind == "thread":

        @app.task(retry=retry)
        def fails(number: int, ctx: Context) -> None:
            attempts.append(ctx.attempt)
            raise error("no")

    else:

        @app.task(retry=retry, batch=1)
        def fails(numbers: list[int]) -> None:
            attempts.append(len(attempts) + 1)
            raise error("no")

    async with working(app):
        run = await fails.submit(1)
        assert isinstance(await error_of(run), RunFailed)
        assert (await run.view()).attempts == calls
        history = await app.runtime.store.attempts(run.id)
        assert [entry.number for entry in history] == list(range(1, calls))
        assert all(entry.failure and entry.failure.type.endswith(error.__name__) for entry in history)
    assert attempts == list(range(1, calls + 1))


async def test_a_later_attempt_may_succeed(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(retry=NOW)
    async def third_time(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise OSError
        return ctx.attempt

    async with working(app):
        run = await third_time.submit()
        assert await result_of(run) == 3
        assert (await run.view()).attempts == 3


async def test_a_retry_waits_for_its_pause(tmp_path: Path) -> None:
    class Last:
        """Draws the longest pause."""

        def __init__(self, inner: Any) -> None:
            self.run_ids = inner.run_ids

        def fraction(self) -> float:
            return 1.0

    app = new_app(tmp_path, host=Host(chance=Last(SystemChance())))
    times = []

    @app.task(retry=Retry(attempts=3, initial="200ms", factor=2, maximum="300ms"))
    async def fails() -> None:
        times.append(time.time())
        raise ValueError

    async with working(app):
        run = await fails.submit()
        await error_of(run)
    assert times[1] - times[0] >= 0.2
    assert times[2] - times[1] >= 0.3


# Timeout


@pytest.mark.parametrize("kind", ["async", "thread", "async transaction", "async batch", "thread batch"])
async def test_an_attempt_that_takes_too_long_is_ended(tmp_path: Path, kind: str) -> None:
    app = new_app(tmp_path)
    stop = threading.Event()
    if kind == "async":

        @app.task(timeout=0.2)
        async def slow(number: int) -> None:
            await asyncio.sleep(60)

    elif kind == "thread":

        @app.task(timeout="200ms")
        def slow(number: int) -> None:
            stop.wait(60)

    elif kind == "async transaction":

        @app.task(timeout=timedelta(seconds=0.2))
        async def slow(number: int, tx: AsyncTransaction) -> None:
            await asyncio.sleep(60)

    elif kind == "async batch":

        @app.task(timeout=0.2, batch=2)
        async def slow(numbers: list[int]) -> None:
            await asyncio.sleep(60)

    else:

        @app.task(timeout=0.2, batch=2)
        def slow(numbers: list[int]) -> None:
            stop.wait(60)

    @app.task
    async def quick() -> int:
        return 1

    async with working(app):
        try:
            run = await slow.submit(1)
            error = await error_of(run)
            assert isinstance(error, RunTimedOut), error
            assert await result_of(await quick.submit()) == 1
        finally:
            stop.set()


async def test_a_timeout_is_retried_as_a_timeout_error(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(timeout=0.1, retry=Retry(attempts=2, initial=0, on=(TimeoutError,)))
    async def slow_once(ctx: Context) -> int:
        if ctx.attempt == 1:
            await asyncio.sleep(60)
        return ctx.attempt

    async with working(app):
        assert await result_of(await slow_once.submit()) == 2


async def test_a_thread_that_is_given_up_is_asked_to_leave(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    left = threading.Event()

    @app.task(timeout=0.2)
    def polls(ctx: Context) -> None:
        try:
            while True:
                ctx.heartbeat()
                time.sleep(0.01)
        except LineshaftError:
            left.set()
            raise

    async with working(app):
        assert isinstance(await error_of(await polls.submit()), RunTimedOut)
        assert await asyncio.to_thread(left.wait, 20)


async def test_a_timeout_error_of_the_function_is_no_timeout(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def raises() -> None:
        raise TimeoutError("the bank")

    async with working(app):
        error = await error_of(await raises.submit())
        assert isinstance(error, RunFailed)
        assert "the bank" in str(error)


# Order and time


async def one_at_a_time(app: App) -> tuple[Task[Any, Any], list[Any]]:
    order: list[Any] = []

    @app.task
    async def note(name: str) -> None:
        order.append(name)

    return note, order


async def test_priority_decides_before_age(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    note, order = await one_at_a_time(app)
    async with app:
        for name, priority in (("old", 0), ("low", -5), ("high", 5), ("higher", 6), ("new", 0)):
            await note.submit(name, priority=priority)
        async with app.worker(concurrency=Concurrency(on_loop=1)):
            await eventually(lambda: len(order) == 5)
    assert order == ["higher", "high", "old", "new", "low"]


async def test_a_task_declares_the_priority_of_its_runs(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    order = []

    @app.task(priority=-3, name="late")
    async def late(name: str) -> None:
        order.append(name)

    async with app:
        await late.submit("declared")
        await late.submit("raised", priority=0)
        async with app.worker(concurrency=Concurrency(on_loop=1)):
            await eventually(lambda: len(order) == 2)
    assert order == ["raised", "declared"]


@pytest.mark.parametrize("how", ["delay", "due", "text"])
async def test_a_run_never_starts_before_it_is_due(tmp_path: Path, how: str) -> None:
    app = new_app(tmp_path)
    started = []

    @app.task
    async def note() -> None:
        started.append(datetime.now(UTC))

    async with working(app):
        due = datetime.now(UTC) + timedelta(seconds=0.4)
        options: dict[str, Any] = {"due": {"due": due}, "delay": {"delay": 0.4}, "text": {"delay": "400ms"}}[
            how
        ]
        run = await note.submit(**options)
        assert await run.status() is State.SCHEDULED
        await result_of(run)
    assert started[0] >= due - timedelta(microseconds=1)


async def test_a_due_time_in_the_past_means_now(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def note() -> int:
        return 1

    async with working(app):
        assert await result_of(await note.submit(due=datetime(2020, 1, 1, tzinfo=UTC))) == 1


async def test_a_worker_takes_only_from_its_queues(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(queue="mail")
    async def post() -> str:
        return "mail"

    @app.task
    async def other() -> str:
        return "default"

    async with app:
        waiting = await other.submit()
        async with app.worker(queues=["mail"]):
            assert await result_of(await post.submit()) == "mail"
            assert await waiting.status() is State.READY
        async with app.worker():
            assert await result_of(waiting) == "default"


# Keys


async def test_a_key_gives_the_same_run(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    calls = []

    @app.task
    async def charge(cents: int) -> int:
        calls.append(cents)
        return cents

    async with working(app):
        first = await charge.submit(5, key="order-1")
        again = await charge.submit(5, key="order-1")
        assert (first.created, again.created, again.id) == (True, False, first.id)
        assert await result_of(again) == 5
        after = await charge.submit(5, key="order-1")
        assert (after.id, after.created) == (first.id, False)
        assert await result_of(after) == 5
    assert calls == [5]


async def test_a_key_with_other_arguments_is_refused(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def charge(cents: int) -> int:
        return cents

    async with app:
        first = await charge.submit(5, key="order-1")
        with pytest.raises(KeyReused, match=rf"'order-1'.*charge'.*{first.id}.*other arguments"):
            await charge.submit(6, key="order-1")
        with pytest.raises(KeyReused):
            await charge.submit_many([7, 8], key=lambda cents: "same")
        assert len(await app.runtime.store.listing(RunFilter())) == 1


async def test_a_key_belongs_to_its_task_and_tenant(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def one(number: int) -> None: ...

    @app.task
    async def two(number: int) -> None: ...

    async with app:
        ids = {
            (await one.submit(1, key="k")).id,
            (await two.submit(2, key="k")).id,
            (await one.submit(3, key="k", tenant="acme")).id,
        }
        assert len(ids) == 3


async def test_a_key_is_free_again_after_its_retention(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def charge(cents: int) -> int:
        return cents

    async with working(app):
        first = await charge.submit(5, key="order-1", key_retention="100ms")
        await result_of(first)
        await asyncio.sleep(0.15)
        second = await charge.submit(6, key="order-1")
        assert second.created
        assert await result_of(second) == 6


async def test_a_key_is_held_while_its_run_goes_on_however_short_its_retention(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def charge(cents: int) -> int:
        return cents

    async with app:
        first = await charge.submit(5, key="order-1", key_retention=0)
        await asyncio.sleep(0.05)
        assert (await charge.submit(5, key="order-1")).id == first.id


async def test_a_failed_holder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    fail = True
    keys = []

    @app.task
    async def charge(cents: int, ctx: Context) -> int:
        keys.append(ctx.idempotency_key)
        if fail:
            raise OSError("bank is down")
        return cents

    async with working(app):
        first = await charge.submit(5, key="k")
        await error_of(first)
        assert (await charge.submit(5, key="k")).id == first.id
        fail = False
        second = await charge.submit(5, key="k", retry_failed=True)
        assert second.created
        assert await result_of(second) == 5
        again = await charge.submit(5, key="k", retry_failed=True)
        assert again.id == second.id
    assert keys == [first.id, first.id], "the idempotency key belongs to the lineage"


async def test_many_submissions_of_one_key_at_once_make_one_run(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    calls = []

    @app.task
    async def charge(cents: int) -> int:
        calls.append(cents)
        return cents

    async with working(app):
        runs = await asyncio.gather(*(charge.submit(5, key="k") for _ in range(50)))
        assert len({run.id for run in runs}) == 1
        assert sum(run.created for run in runs) == 1
        await results_of(runs)
    assert calls == [5]


# Tenants


async def test_a_tenant_comes_from_the_arguments_or_the_submission(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(tenant=lambda order: order["tenant"])
    async def derived(order: dict[str, str], ctx: Context) -> str:
        return ctx.tenant

    @app.task(tenant="required")
    async def required(ctx: Context) -> str:
        return ctx.tenant

    @app.task
    async def plain(ctx: Context) -> str:
        return ctx.tenant

    async with working(app):
        assert await result_of(await derived.submit({"tenant": "acme"})) == "acme"
        assert await result_of(await derived.submit({"tenant": "acme"}, tenant="zeta")) == "zeta"
        assert await result_of(await required.submit(tenant="acme")) == "acme"
        assert await result_of(await plain.submit()) == "default"
        with pytest.raises(InvalidArguments, match=r"required' needs a tenant"):
            await required.submit()
        with pytest.raises(InvalidArguments, match=r"tenant.*derived.*KeyError"):
            await derived.submit({})


# Context


async def test_a_context_knows_its_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = new_app(tmp_path)

    @app.task(retry=NOW, queue="q")
    async def looks(ctx: Context) -> list[Any]:
        ctx.logger.warning("attempt %d", ctx.attempt)
        if ctx.attempt == 1:
            raise ValueError
        return [ctx.run_id, ctx.task, ctx.queue, ctx.tenant, ctx.attempt, ctx.idempotency_key]

    async with working(app):
        with caplog.at_level(logging.WARNING, "lineshaft.run"):
            run = await looks.submit(tenant="acme")
            found = await result_of(run)
    assert found == [run.id, looks.name, "q", "acme", 2, run.id]
    records = [record for record in caplog.records if record.name == "lineshaft.run"]
    assert [(r.run_id, r.task, r.tenant, r.attempt) for r in records] == [  # type: ignore[attr-defined]
        (run.id, looks.name, "acme", 1),
        (run.id, looks.name, "acme", 2),
    ]


async def test_wall_time_and_cpu_are_recorded_for_every_kind_of_attempt(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    def burn() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    @app.task
    async def on_loop() -> None:
        burn()
        await asyncio.sleep(0.1)
        burn()

    @app.task
    def in_thread() -> None:
        burn()

    async with working(app):
        run = await on_loop.submit()
        await result_of(run)
        view = await run.view()
        assert view.wall_us >= 190_000
        assert 100_000 <= view.cpu_us < view.wall_us
        run = await in_thread.submit()
        await result_of(run)
        view = await run.view()
        assert 50_000 <= view.cpu_us <= view.wall_us + 1_000


# At most once


async def test_at_most_once_work_that_raises_is_not_repeated(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    calls = []

    @app.task(at_most_once=True)
    async def pay() -> None:
        calls.append(1)
        raise OSError

    async with working(app):
        run = await pay.submit()
        assert isinstance(await error_of(run), RunFailed)
    assert len(calls) == 1


async def test_at_most_once_work_that_outlasts_the_grace_has_an_unknown_outcome(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    begun = asyncio.Event()

    @app.task(at_most_once=True)
    async def pay() -> None:
        begun.set()
        await asyncio.sleep(60)

    async with app:
        async with app.worker(grace=0):
            run = await pay.submit()
            await asyncio.wait_for(begun.wait(), PATIENCE_S)
        assert isinstance(await error_of(run), RunOutcomeUnknown)


async def test_at_most_once_work_waits_where_its_start_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = new_app(tmp_path)
    calls = []

    @app.task(at_most_once=True)
    async def pay() -> int:
        calls.append(1)
        return 1

    async with working(app):
        store: Any = app.runtime.store
        real = store.mark_started
        refused = []

        async def once_refused(*args: Any) -> bool:
            if not refused:
                refused.append(1)
                raise StoreUnavailable("the disk sulks")
            return await real(*args)

        monkeypatch.setattr(store, "mark_started", once_refused)
        run = await pay.submit()
        assert await result_of(run) == 1
        assert (await run.view()).attempts == 1
    assert (len(refused), len(calls)) == (1, 1)


async def test_cancelled_at_most_once_work_is_cancelled(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    begun = asyncio.Event()

    @app.task(at_most_once=True)
    async def pay() -> None:
        begun.set()
        await asyncio.sleep(60)

    async with working(app):
        run = await pay.submit()
        await begun.wait()
        await run.cancel()
        assert isinstance(await error_of(run), RunCancelled)
