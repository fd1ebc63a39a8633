"""The apps whose runs are executed. Each function makes one on a store, for the measuring process and for workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from lineshaft import App, AsyncTransaction, Limit, Rate, Task, Transaction
from lineshaft.cli.benchmark.work import QUEUE, TASK, Order, Receipt, charge

AppAndTask = tuple[App, Task[Any, Any]]
WithBlocked = tuple[App, Task[Any, Any], Task[Any, Any]]
PLAIN = "lineshaft.cli.benchmark.work:bench_app"
"""The app of `lineshaft bench`: one asynchronous task that does nothing, with a typed argument and result."""
TENANTS = 100
DAY_S = 86_400


def named(function: str) -> str:
    """What a worker process is told to import."""
    return f"{__name__}:{function}"


def _app(address: str) -> App:
    return App("lineshaft-bench", store=address, history="3650d")


def tenant_of(order: Order) -> str:
    return f"tenant-{order.id % TENANTS}"


def limited(address: str) -> AppAndTask:
    """The same with a hundred tenants in fair turns, and three limits that are never reached, but always watched."""
    app = _app(address)
    limits = [Limit(5_000), Limit(500, per="tenant"), Rate(1_000_000, per_seconds=1)]
    return app, app.task(name=TASK, queue=QUEUE, tenant=tenant_of, limits=limits)(charge)


def tenants(address: str) -> AppAndTask:
    """A hundred tenants, without limits."""
    app = _app(address)
    return app, app.task(name=TASK, queue=QUEUE, tenant=tenant_of)(charge)


# What stands in front of others: the third that is returned is the task of what is held back.


def with_rate(address: str) -> WithBlocked:
    return _with_blocked(address, charge, limits=[Rate(1, per_seconds=DAY_S)])


def with_limit(address: str) -> WithBlocked:
    """One blocked run executes for as long as the measurement takes, and the others wait for its slot."""
    return _with_blocked(address, _occupy, limits=[Limit(1)])


def with_tenants(address: str) -> WithBlocked:
    """A thousand lanes, one a tenant, each behind a rate of its own."""
    limits = [Rate(1, per_seconds=DAY_S, per="tenant")]
    return _with_blocked(address, charge, tenant=lambda order: f"tenant-{order.id % 1_000}", limits=limits)


def with_unlimited(address: str) -> WithBlocked:
    """Nothing but being unknown, or a delay, holds the blocked runs back."""
    return _with_blocked(address, charge)


def _with_blocked(address: str, function: Callable[..., Any], **options: Any) -> WithBlocked:
    app = _app(address)
    return (
        app,
        app.task(name=TASK, queue=QUEUE)(charge),
        app.task(name="blocked", queue=QUEUE, **options)(function),
    )


async def _occupy(order: Order) -> Receipt:
    await asyncio.sleep(DAY_S)
    return Receipt(order=order.id, cents=order.cents)


# Other kinds of tasks


def threads(address: str) -> AppAndTask:
    app = _app(address)

    def charge_in_thread(order: Order) -> Receipt:
        return Receipt(order=order.id, cents=order.cents)

    return app, app.task(name=TASK, queue=QUEUE)(charge_in_thread)


def batches(address: str) -> AppAndTask:
    app = _app(address)

    async def charge_many(orders: list[Order]) -> list[Receipt]:
        return [Receipt(order=order.id, cents=order.cents) for order in orders]

    return app, app.task(name=TASK, queue=QUEUE, batch=500, batch_wait="5ms")(charge_many)


ENTRY = "CREATE TABLE IF NOT EXISTS entry (id INTEGER, cents INTEGER)"
_INSERT = text("INSERT INTO entry (id, cents) VALUES (:id, :cents)")


def transactions(address: str) -> AppAndTask:
    """A synchronous task that writes one row in its transaction."""
    app = _app(address)

    def book(order: Order, tx: Transaction) -> Receipt:
        tx.session.execute(_INSERT, {"id": order.id, "cents": order.cents})
        return Receipt(order=order.id, cents=order.cents)

    return app, app.task(name=TASK, queue=QUEUE)(book)


def async_transactions(address: str) -> AppAndTask:
    app = _app(address)

    async def book(order: Order, tx: AsyncTransaction) -> Receipt:
        await tx.session.execute(_INSERT, {"id": order.id, "cents": order.cents})
        return Receipt(order=order.id, cents=order.cents)

    return app, app.task(name=TASK, queue=QUEUE)(book)


def batches_in_transactions(address: str) -> AppAndTask:
    """Five hundred runs, and their rows, in one transaction."""
    app = _app(address)

    def post(orders: list[Order], tx: Transaction) -> list[Receipt]:
        tx.session.execute(_INSERT, [{"id": order.id, "cents": order.cents} for order in orders])
        return [Receipt(order=order.id, cents=order.cents) for order in orders]

    return app, app.task(name=TASK, queue=QUEUE, batch=500, batch_wait="5ms")(post)
