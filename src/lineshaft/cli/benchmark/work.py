"""The app that `lineshaft bench` runs: one no-op task with a typed argument and result, in a queue of its own."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from lineshaft.app import App
from lineshaft.engine.task import Task

QUEUE = "lineshaft-bench"
TASK = "lineshaft.bench"


class Order(BaseModel):
    """What a run gets."""

    id: int
    tenant: str
    cents: int


class Receipt(BaseModel):
    """What it returns."""

    order: int
    cents: int


async def charge(order: Order) -> Receipt:
    """Do nothing, the typed way."""
    return Receipt(order=order.id, cents=order.cents)


def bench_app(address: str) -> tuple[App, Task[[Order], object]]:
    """The app on a store.

    It keeps history for ten years, as far as it is concerned: the store may be somebody's, and
    a worker prunes by the retention of its own app.
    """
    app = App("lineshaft-bench", store=address, history="3650d")
    return app, app.task(name=TASK, queue=QUEUE)(charge)


def orders(count: int) -> Iterator[Order]:
    """What is submitted."""
    return (Order(id=number, tenant=f"tenant-{number % 10}", cents=number % 1_000) for number in range(count))
