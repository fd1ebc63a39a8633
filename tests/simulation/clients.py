"""Clients: one that submits and waits, and an operator that cancels and retries."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lineshaft import Run
from lineshaft.control import runs as control
from lineshaft.control.desk import Desk
from lineshaft.core.errors import (
    LineshaftError,
    ResultTimeout,
    RunFailure,
    StoreError,
    StoreFull,
    TransactionTooLong,
)
from tests.simulation.tasks import TENANTS, Act

if TYPE_CHECKING:
    from tests.simulation.script import Cast
    from tests.simulation.world import Member

KINDS = {
    "plain": 6, "urgent": 1, "threaded": 3, "once": 3, "timed": 2, "limited": 3, "tenant_limited": 2, "rated": 2,
    "forgetful": 2, "rare": 1, "ledger": 5, "ledger_async": 3, "batch": 3, "batch_ledger": 3,
}  # fmt: skip
KEYED = ("plain", "ledger", "forgetful", "once")
CERTAIN = (StoreFull, TransactionTooLong)
"""Errors of the store after which nothing was written, as they say; after others nobody knows."""


class RolledBack(Exception):
    """A client changed its mind inside a transaction."""


@dataclass
class Order:
    """One submission, as it was wished for."""

    kind: str
    works: list[int]
    options: dict[str, Any]
    operation: int = 0

    @property
    def key(self) -> str | None:
        key: str | None = self.options.get("key")
        return key


class Submitter:
    """Submits in every way there is, and waits for some of the results."""

    def __init__(self, cast: Cast, member: Member, random: Random) -> None:
        self._cast = cast
        self._world = cast.world
        self._member = member
        self._random = random
        self._orders: list[Order] = []
        self._waiting: set[asyncio.Task[None]] = set()
        self.name = member.process.name

    async def submit_all(self, member: Member) -> None:
        self._cast.busy.add(self.name)
        member.process.at_death(lambda: self._cast.busy.discard(self.name))
        profile = self._world.profile
        for _ in range(profile.operations):
            await asyncio.sleep(self._random.expovariate(profile.operations / profile.active_s))
            order = self._draw()
            self._spawn(self._submit(order))
            if order.key is not None:
                # A client that got no answer asks again; others come to have the same key, or think so.
                for _ in range(self._random.choice((0, 1, 1, 2))):
                    self._spawn(self._later(self._submit, self._again(order)))
        while self._waiting:
            await asyncio.wait(self._waiting)
        self._cast.busy.discard(self.name)
        await member.stop.wait()
        await member.app.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _later(self, call: Callable[..., Awaitable[None]], *args: Any) -> None:
        await asyncio.sleep(self._random.choice((0.0, 0.05, 0.5, 2.0, 4.0)))
        await call(*args)

    # What is submitted

    def _draw(self) -> Order:
        random = self._random
        kind = random.choices(list(KINDS), list(KINDS.values()))[0]
        options: dict[str, Any] = {"tenant": random.choice(TENANTS)}
        if random.random() < 0.2:
            options["delay"] = random.choice((0.2, 1.0, 3.0))
        if random.random() < 0.2:
            options["priority"] = random.choice((-5, 1, 100))
        count = random.randint(2, 7) if random.random() < 0.25 else 1
        if kind in KEYED and count == 1 and random.random() < 0.6:
            options["key"] = f"key {len(self._orders)} of {self.name}"
        works = [self._world.play.new_work(self._acts(kind)) for _ in range(count)]
        order = Order(kind, works, options)
        self._orders.append(order)
        return order

    def _acts(self, kind: str) -> Sequence[Act]:
        """What the bodies of new work do, attempt by attempt."""
        random = self._random
        if random.random() < self._world.profile.killers and "batch" not in kind:
            deaths = random.choice((1, 2, 20))
            return [Act(random.choice((0.0, 0.2)), "die")] * deaths + [Act(0.01, "return")]
        ends = ["return"] * 12 + ["raise"] * 4 + ["unprintable", "misfit"]
        if kind in ("plain", "batch", "batch_ledger"):
            ends += ["give_up"] * 2
        if kind == "ledger_async":
            ends += ["chain"] * 4
        # What holds the writer holds up everybody's heartbeat: it is short, or cut off.
        times_s = (0.0, 0.01, 0.05, 0.3, 1.0) if "ledger" in kind else (0.0, 0.01, 0.3, 1.0, 3.0)
        return [self._act(random.choice(ends), times_s) for _ in range(3)]

    def _act(self, end: str, times_s: Sequence[float]) -> Act:
        takes_s = self._random.choice(times_s)
        if self._random.random() < 0.02:
            takes_s = 6.0
        return Act(takes_s, end)

    def _again(self, order: Order) -> Order:
        random = self._random
        options = {**order.options, "retry_failed": random.random() < 0.4}
        works = order.works
        if random.random() < 0.2:
            works = [self._world.play.new_work([Act(0.01, "return")])]
        return Order(order.kind, works, options)

    # How it is submitted

    async def _submit(self, order: Order) -> None:
        ways = [self._plainly] * 6 + [self._in_transaction] * 2 + [self._through_connection]
        way = self._random.choice(ways)
        asked = self._world.history.add(
            "submit asked",
            task=order.kind,
            works=order.works,
            **order.options,
            via=way.__name__,
            wall_us=self._member.host.clock.now_us(),
        )
        order.operation = len(self._world.history.events)
        asked["operation"] = order.operation
        try:
            runs = await way(order)
        except (LineshaftError, RolledBack, DBAPIError) as error:
            uncertain = isinstance(error, StoreError) and not isinstance(error, CERTAIN)
            name = type(error).__name__
            self._world.history.add(
                "submit failed", operation=order.operation, error=name, certain=not uncertain
            )
            if uncertain and order.key is not None:
                await self._later(self._submit, Order(order.kind, order.works, order.options))
            return
        self._world.history.add(
            "submit done", operation=order.operation, runs=[[run.id, run.created] for run in runs]
        )
        for run in runs:
            self._cast.known.append(run.id)
            if self._random.random() < 0.7:
                self._spawn(self._wait(run))
            if self._random.random() < 0.1:
                self._spawn(self._later(self._cancel, run))

    async def _plainly(self, order: Order) -> Sequence[Run[Any]]:
        task = self._member.tasks[order.kind]
        if len(order.works) == 1:
            return [await task.submit(order.works[0], **order.options)]
        return await task.submit_many(order.works, **order.options)

    async def _in_transaction(self, order: Order) -> Sequence[Run[Any]]:
        async with self._member.app.transaction() as tx:
            await tx.session.execute(
                text("INSERT INTO orders (operation) VALUES (:operation)"), {"operation": order.operation}
            )
            runs = await self._member.tasks[order.kind].submit_many(
                order.works, tx=tx, **{**order.options, **_for_many(order)}
            )
            await asyncio.sleep(self._random.choice((0.0, 0.0, 0.01, 0.3, 0.3, 5.0)))
            if self._random.random() < 0.1:
                raise RolledBack
        return runs

    async def _through_connection(self, order: Order) -> Sequence[Run[Any]]:
        connection = self._member.app.connect()
        try:
            # Whoever holds the write lock does so over steps of the loop: waiting here would be for ever.
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO orders (operation) VALUES (?)", (order.operation,))
            runs = await self._member.tasks[order.kind].submit_many(
                order.works, tx=connection, **{**order.options, **_for_many(order)}
            )
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError("simulated") from error
        finally:
            connection.close()
        return runs

    # What comes of it

    async def _wait(self, run: Run[Any]) -> None:
        timeout_s = self._random.choice((None, None, 2.0, 10.0))
        while True:
            try:
                value = await run.result(timeout=timeout_s)
            except ResultTimeout:
                self._world.history.add("waits", run=run.id)
            except StoreError:
                await asyncio.sleep(0.1)
            except LineshaftError as error:
                name = error.code if isinstance(error, RunFailure) else type(error).__name__
                self._world.history.add("heard", run=run.id, how=name)
                return
            else:
                self._world.history.add("heard", run=run.id, how="succeeded", value=value)
                return

    async def _cancel(self, run: Run[Any]) -> None:
        try:
            state = await run.cancel()
        except LineshaftError as error:
            self._world.history.add("cancel failed", run=run.id, error=type(error).__name__)
        else:
            self._world.history.add("cancel done", run=run.id, state=str(state))


def _for_many(order: Order) -> dict[str, Any]:
    key = order.key
    return {} if key is None else {"key": lambda _: key}


class Operator:
    """Cancels and retries what others submitted."""

    def __init__(self, cast: Cast, random: Random) -> None:
        self._cast = cast
        self._history = cast.world.history
        self._random = random

    async def operate(self, member: Member) -> None:
        desk = Desk(member.app.runtime.store, member.host.clock, member.host.chance)
        while not self._cast.calm:
            await asyncio.sleep(self._random.expovariate(2.0))
            if not self._cast.known:
                continue
            run_id = self._random.choice(self._cast.known)
            try:
                if self._random.random() < 0.2:
                    state = await control.cancel(desk, run_id)
                    self._history.add("cancel done", run=run_id, state=str(state))
                else:
                    new = await control.retry(desk, run_id)
                    self._cast.known.append(new.id)
                    self._history.add("retry done", run=run_id, new=new.id)
            except LineshaftError as error:
                self._history.add("operator failed", run=run_id, error=type(error).__name__)
        await member.stop.wait()
