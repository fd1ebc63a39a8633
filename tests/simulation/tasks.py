"""The tasks that simulated workers execute. What a body does is written down for its work before it is submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import text

from lineshaft import App, AsyncTransaction, Context, Failed, Limit, Rate, Retry, Transaction
from lineshaft.engine.task import Task

TENANTS = ("acme", "blue", "core")
RETRY = Retry(attempts=3, initial=0.3, maximum=1.0)
LIMIT, TENANT_LIMIT, RATE, RATE_S, TIMEOUT_S = 2, 1, 3, 2.0, 1.5
KEEPS_KEYS_S = 1.0
"""How long tasks of the kind `forgetful` keep their keys."""

LEDGER = "INSERT INTO ledger (run_id, work, visit) VALUES (:run_id, :work, :visit)"


@dataclass(frozen=True, slots=True)
class Act:
    """What a body does in one attempt: take its time, then end in some way."""

    takes_s: float
    end: str
    """return, raise, give_up (not retried), die, misfit (a result of the wrong type), unprintable, chain."""


class Visit(Protocol):
    """One call of a body."""

    number: int

    def ends(self, how: str) -> None: ...


class Stage(Protocol):
    """What bodies need of the simulation that they are part of."""

    def enter(self, kind: str, works: Sequence[int], ctx: Context | None) -> Visit: ...
    def act(self, work: int, attempt: int) -> Act: ...
    def block(self, seconds: float) -> None: ...
    def die(self) -> None: ...
    async def gone(self) -> None: ...
    def block_for_good(self) -> None: ...
    def follow_up(self, work: int) -> int: ...
    def submit(self, kind: str) -> Any: ...


class _Stages:
    present: Stage


stages = _Stages()
"""The simulation under way; there is one at a time in a process."""


class GivesUp(Exception):
    """Not worth another attempt."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("this has no message")


def _end(visit: Visit, act: Act) -> Any:
    if act.end == "raise":
        raise ConnectionError("simulated")
    if act.end == "give_up":
        raise GivesUp
    if act.end == "unprintable":
        raise Unprintable
    if act.end == "misfit":
        visit.ends("returned")
        return "no number"
    visit.ends("returned")
    return visit.number


async def _perform(kind: str, work: int, ctx: Context, tx: AsyncTransaction | None = None) -> Any:
    stage = stages.present
    visit = stage.enter(kind, [work], ctx)
    act = stage.act(work, ctx.attempt)
    try:
        if tx is not None:
            row = {"run_id": ctx.run_id, "work": work, "visit": visit.number}
            await tx.session.execute(text(LEDGER), row)
            if act.end == "chain":
                await stage.submit("plain").submit(stage.follow_up(work), tx=tx, tenant=ctx.tenant)
        await asyncio.sleep(act.takes_s)
        if act.end == "die":
            stage.die()
            await stage.gone()
        return _end(visit, act)
    except asyncio.CancelledError:
        visit.ends("cancelled")
        raise
    except Exception:
        visit.ends("raised")
        raise


def _perform_in_thread(kind: str, work: int, ctx: Context, tx: Transaction | None = None) -> Any:
    stage = stages.present
    visit = stage.enter(kind, [work], ctx)
    act = stage.act(work, ctx.attempt)
    try:
        if tx is not None:
            tx.session.execute(text(LEDGER), {"run_id": ctx.run_id, "work": work, "visit": visit.number})
        stage.block(act.takes_s)
        if act.end == "die":
            stage.die()
            stage.block_for_good()
        ctx.heartbeat()
        return _end(visit, act)
    except Exception:
        visit.ends("raised")
        raise


def _results(visit: Visit, works: Sequence[int]) -> list[int | Failed]:
    """What a batch returns; raises for all of them where one is of that kind."""
    ends = [stages.present.act(work, 1).end for work in works]
    if "give_up" in ends:
        raise GivesUp
    visit.ends("returned")
    return [Failed("simulated") if end == "raise" else visit.number for end in ends]


def _takes_s(works: Sequence[int]) -> float:
    return max(stages.present.act(work, 1).takes_s for work in works)


def declare(app: App) -> dict[str, Task[Any, Any]]:
    """The tasks by their names."""
    tasks = (*_of_one(app), *_in_transactions(app), *_in_batches(app))
    return {task.name: task for task in tasks}


def _of_one(app: App) -> Sequence[Task[Any, Any]]:
    never = Retry(attempts=3, initial=0.3, maximum=1.0, never=(GivesUp,))

    @app.task(name="plain", retry=never, tenant="required")
    async def plain(work: int, ctx: Context) -> int:
        return await _perform("plain", work, ctx)  # type: ignore[no-any-return]

    @app.task(name="urgent", retry=RETRY, tenant="required", priority=10, queue="urgent")
    async def urgent(work: int, ctx: Context) -> int:
        return await _perform("urgent", work, ctx)  # type: ignore[no-any-return]

    @app.task(name="threaded", retry=RETRY, tenant="required")
    def threaded(work: int, ctx: Context) -> int:
        return _perform_in_thread("threaded", work, ctx)  # type: ignore[no-any-return]

    @app.task(name="once", at_most_once=True, tenant="required")
    async def once(work: int, ctx: Context) -> int:
        return await _perform("once", work, ctx)  # type: ignore[no-any-return]

    @app.task(name="timed", retry=RETRY, timeout=TIMEOUT_S, tenant="required")
    async def timed(work: int, ctx: Context) -> int:
        return await _perform("timed", work, ctx)  # type: ignore[no-any-return]

    @app.task(name="limited", retry=RETRY, limits=[Limit(LIMIT)], tenant="required")
    async def limited(work: int, ctx: Context) -> int:
        return await _perform("limited", work, ctx)  # type: ignore[no-any-return]

    @app.task(
        name="tenant_limited", retry=RETRY, limits=[Limit(TENANT_LIMIT, per="tenant")], tenant="required"
    )
    async def tenant_limited(work: int, ctx: Context) -> int:
        return await _perform("tenant_limited", work, ctx)  # type: ignore[no-any-return]

    @app.task(name="rated", retry=RETRY, limits=[Rate(RATE, per_seconds=RATE_S)], tenant="required")
    async def rated(work: int, ctx: Context) -> int:
        return await _perform("rated", work, ctx)  # type: ignore[no-any-return]

    @app.task(name="forgetful", key_retention=KEEPS_KEYS_S, tenant="required")
    async def forgetful(work: int, ctx: Context) -> int:
        return await _perform("forgetful", work, ctx)  # type: ignore[no-any-return]

    @app.task(name="rare", version="2", tenant="required")
    async def rare(work: int, ctx: Context) -> int:
        return await _perform("rare", work, ctx)  # type: ignore[no-any-return]

    return plain, urgent, threaded, once, timed, limited, tenant_limited, rated, forgetful, rare


def _in_transactions(app: App) -> Sequence[Task[Any, Any]]:
    @app.task(name="ledger", retry=RETRY, tenant="required")
    def ledger(work: int, ctx: Context, tx: Transaction) -> int:
        return _perform_in_thread("ledger", work, ctx, tx)  # type: ignore[no-any-return]

    @app.task(name="ledger_async", retry=RETRY, tenant="required")
    async def ledger_async(work: int, ctx: Context, tx: AsyncTransaction) -> int:
        return await _perform("ledger_async", work, ctx, tx)  # type: ignore[no-any-return]

    return ledger, ledger_async


def _in_batches(app: App) -> Sequence[Task[Any, Any]]:
    @app.task(name="batch", batch=4, batch_wait=0.1, retry=RETRY, tenant="required")
    async def batch(works: list[int]) -> list[int | Failed]:
        visit = stages.present.enter("batch", works, None)
        try:
            await asyncio.sleep(_takes_s(works))
            return _results(visit, works)
        except asyncio.CancelledError:
            visit.ends("cancelled")
            raise
        except Exception:
            visit.ends("raised")
            raise

    @app.task(name="batch_ledger", batch=4, batch_wait=0.1, retry=RETRY, tenant="required")
    def batch_ledger(works: list[int], tx: Transaction) -> list[int | Failed]:
        visit = stages.present.enter("batch_ledger", works, None)
        try:
            for work in works:
                row = {"run_id": None, "work": work, "visit": visit.number}
                # An item that fails must leave no row: its outcome commits with those of the others.
                if stages.present.act(work, 1).end != "raise":
                    tx.session.execute(text(LEDGER), row)
            stages.present.block(_takes_s(works))
            return _results(visit, works)
        except Exception:
            visit.ends("raised")
            raise

    return batch, batch_ledger
