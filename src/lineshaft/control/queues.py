"""Queues: how much lies in each, how old it is, and who holds the slots of its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lineshaft.control.desk import Desk, use_case
from lineshaft.core.states import State
from lineshaft.engine.why import Holder
from lineshaft.store.values import LimitTerms, Pace, QueueView, RunFilter, SlotHolder, WorkerView


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """A limit as it stands: how much of it is taken, by whom, and when a rate opens again."""

    key: str
    count: int
    period_us: int | None
    """Of a rate; None for a concurrency limit."""
    per_tenant: bool
    held: int
    holders: tuple[Holder, ...]
    opens_us: int | None


@dataclass(frozen=True, slots=True)
class QueueDetails:
    """One queue."""

    queue: str
    counts: dict[State, int]
    oldest_ready_us: int | None
    limits: tuple[LimitStanding, ...]
    workers: tuple[WorkerView, ...]
    """Live workers that serve it."""


@use_case("queues.read")
async def listing(desk: Desk) -> Sequence[QueueView]:
    """Every queue that has unfinished runs."""
    return await desk.store.queues()


@use_case("queues.read")
async def show(desk: Desk, name: str) -> QueueDetails | None:
    """One queue; None where there is no trace of it: no run, and no worker that declares or serves it."""
    views = [view for view in await desk.store.queues() if view.queue == name]
    workers = [worker for worker in await desk.store.workers() if worker.alive]
    serving = tuple(worker for worker in workers if not worker.queues or name in worker.queues)
    terms = {limit: None for worker in workers for limit in worker.terms.limits if limit.queue == name}
    named = any(name in worker.queues for worker in workers)
    if not (
        views or terms or named or await desk.store.listing(RunFilter(queues=frozenset({name}), rows_max=1))
    ):
        return None
    slots = await desk.store.slots()
    return QueueDetails(
        queue=name,
        counts=views[0].counts if views else {},
        oldest_ready_us=views[0].oldest_ready_us if views else None,
        limits=tuple(
            [standing for limit in terms for standing in await _standings(desk, limit, slots, workers)]
        ),
        workers=serving,
    )


async def _standings(
    desk: Desk, limit: LimitTerms, slots: Sequence[SlotHolder], workers: Sequence[WorkerView]
) -> list[LimitStanding]:
    """A limit per tenant stands once for each tenant that takes something of it."""
    if limit.period_us is not None:
        return [await _rate(desk, limit)]
    found = {worker.id: worker for worker in workers}
    keys = [limit.scope]
    if limit.per_tenant:
        prefix = f"{limit.scope}/tenant:"
        keys = sorted({slot.key for slot in slots if slot.key.startswith(prefix)}) or [f"{prefix}*"]
    standings = []
    for key in keys:
        holders = tuple(
            Holder(slot.worker, found[slot.worker].host, found[slot.worker].pid, slot.held)
            for slot in slots
            if slot.key == key and slot.worker in found
        )
        held = sum(holder.held for holder in holders)
        standings.append(LimitStanding(key, limit.count, None, limit.per_tenant, held, holders, None))
    return standings


async def _rate(desk: Desk, limit: LimitTerms) -> LimitStanding:
    if limit.per_tenant:
        return LimitStanding(f"{limit.scope}/tenant:*/rate", limit.count, limit.period_us, True, 0, (), None)
    gate = limit.gate("")
    assert isinstance(gate, Pace)
    opens_us = await desk.store.pace_open_us(gate)
    shut = opens_us > desk.clock.now_us()
    return LimitStanding(gate.key, limit.count, limit.period_us, False, 0, (), opens_us if shut else None)
