"""The public surface as a type checker sees it; `tests/unit/test_public_surface.py` has mypy look at this file.

Nothing here is executed. A line that must be refused carries the refusal; mypy reports one that is not needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from lineshaft import (
    App,
    AsyncTransaction,
    Concurrency,
    Context,
    Failed,
    Limit,
    Progress,
    Rate,
    Retry,
    Run,
    State,
    Transaction,
)


class Order(BaseModel):
    id: str
    tenant: str
    cents: int


app = App("shop", store="sqlite:///shop.db", history="30d")
app.queue("payments", limits=[Limit(10), Rate(100, per_seconds=60)])


@app.task
async def plain(order: Order) -> str:
    return order.id


@app.task
def synchronous(order: Order, times: int = 1) -> list[str]:
    return [order.id] * times


@app.task(
    name="charge",
    version="2",
    queue="payments",
    run_in="async",
    retry=Retry(attempts=5, initial="1s", on=(OSError,), never=(TimeoutError,)),
    timeout=timedelta(seconds=30),
    priority=3,
    limits=[Limit(10), Limit(2, per="tenant"), Rate(100, per_seconds=60)],
    tenant=lambda order: order.tenant,
    key_retention="7d",
)
async def charge(order: Order, ctx: Context) -> int:
    assert_type(ctx.run_id, str)
    assert_type(ctx.attempt, int)
    assert_type(ctx.idempotency_key, str)
    ctx.progress(1, 2, "half")
    ctx.heartbeat()
    ctx.logger.info("charged")
    return order.cents


@app.task(tenant="required", at_most_once=True)
async def pay(order: Order) -> None: ...


@app.task
def book(order: Order, tx: Transaction) -> None:
    assert_type(tx.session, Session)


@app.task
async def book_async(order: Order, tx: AsyncTransaction) -> None:
    assert_type(tx.session, AsyncSession)
    run = await plain.submit(order, tx=tx)
    assert_type(run.created, bool)


@app.task(batch=500, batch_wait="50ms", split=True)
def post(orders: list[Order], tx: Transaction) -> list[str | Failed]:
    return [Failed("no"), Failed(ValueError("no")), orders[0].id]


@app.task(run_in="process")
def render(order: Order) -> bytes:
    return b""


# What must be refused


@app.task(retries=3)  # type: ignore[call-overload, untyped-decorator]
async def unknown_setting() -> None: ...


@app.task(run_in="cloud")  # type: ignore[call-overload, untyped-decorator]
def unknown_place() -> None: ...


@app.task(retry=3)  # type: ignore[call-overload, untyped-decorator]
def no_policy() -> None: ...


Limit("many")  # type: ignore[arg-type]
Limit(1, per="user")  # type: ignore[arg-type]


async def calls(order: Order) -> None:
    called: Coroutine[Any, Any, str] = plain(order)
    assert_type(await called, str)
    assert_type(await plain(order), str)
    assert_type(synchronous(order), list[str])
    assert_type(synchronous(order, times=2), list[str])
    await plain(5)  # type: ignore[arg-type]
    synchronous(order, 1, 2)  # type: ignore[call-arg]


async def submissions(order: Order) -> None:
    run = await charge.submit(
        order,
        key=order.id,
        key_retention=60,
        retry_failed=True,
        tenant="acme",
        priority=5,
        delay="10m",
    )
    assert_type(run.id, str)
    assert_type(await run.status(), State)
    assert_type(await run.cancel(), State)
    assert_type(run.progress(), AsyncIterator[Progress])
    await run.result(timeout=5)
    await charge.submit(order, due=datetime.now(UTC), key=lambda order: order.id)
    runs = await charge.submit_many([order], key=lambda order: order.id)
    assert_type(runs[0].id, str)
    await charge.submit(order, delay=object())  # type: ignore[arg-type]


def blocking(order: Order) -> None:
    run = charge.blocking.submit(order)
    run.blocking.result(timeout=5)
    assert_type(run.blocking.status(), State)
    assert_type(run.blocking.progress(), Iterator[Progress])


async def running() -> None:
    async with (
        app,
        app.worker(queues=["payments"], concurrency=Concurrency(threads=4), lease="15s", grace=5) as worker,
    ):
        assert_type(worker.in_flight, int)
    async with app.transaction() as tx:
        assert_type(tx, AsyncTransaction)
    assert_type(app.engine(), Engine)
    found: Run[Any] = app.run("id", charge)
    assert_type(found.id, str)
