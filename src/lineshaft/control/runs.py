"""Runs: list them, show one, say why it is not finished, retry it, cancel it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pydantic_core

from lineshaft.control.desk import Desk, use_case
from lineshaft.core import bounds
from lineshaft.core.codec import digest
from lineshaft.core.errors import RunNotFound
from lineshaft.core.states import State
from lineshaft.engine.context import Progress
from lineshaft.engine.fairness import place_in_lane_us
from lineshaft.engine.why import Why
from lineshaft.engine.why import why as explain_wait
from lineshaft.store.values import AttemptView, NewRun, RunFilter, RunView, SubmissionKey


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run with all that is known of it."""

    run: RunView
    attempts: Sequence[AttemptView]
    """Those before the present or last one."""
    progress: Progress | None
    retried_by: str | None
    why: Why


@use_case("runs.read")
async def listing(desk: Desk, wanted: RunFilter) -> Sequence[RunView]:
    """Runs without arguments and results, newest first."""
    return await desk.store.listing(wanted)


@use_case("runs.read")
async def show(desk: Desk, run_id: str) -> RunDetails:
    """One run. Raises `RunNotFound`."""
    run = await _found(desk, run_id)
    progress = await desk.store.progress(run_id)
    return RunDetails(
        run=run,
        attempts=await desk.store.attempts(run_id),
        progress=None if progress is None else Progress(*pydantic_core.from_json(progress)),
        retried_by=await desk.store.retried_by(run_id),
        why=await explain_wait(desk.store, desk.clock, run_id),
    )


@use_case("runs.read")
async def why(desk: Desk, run_id: str) -> Why:
    """Why a run is not finished, or how it ended. Raises `RunNotFound`."""
    return await explain_wait(desk.store, desk.clock, run_id)


@use_case("runs.retry")
async def retry(desk: Desk, run_id: str) -> RunView:
    """Make a new run of one that failed, was cancelled, or whose outcome is unknown; the old one stays as it is.

    The new one has the arguments, lane, priority, idempotency key and submission key of the old, and is linked
    to it. Raises `RunNotFound`, and `InvalidTransition` for a run that has not ended, that succeeded, that was
    retried before, or whose key another run holds by now.
    """
    old = await _found(desk, run_id)
    now_us = desk.clock.now_us()
    key = None
    if old.key is not None:
        # The store keeps the key's own retention where the old run still has it.
        retention_us = int(bounds.KEY_RETENTION_S * 1_000_000)
        key = SubmissionKey(old.key, digest(old.args).hex(), retention_us)
    new = NewRun(
        id=desk.chance.run_ids(now_us, 1)[0],
        lane=old.lane,
        args=old.args,
        submitted_us=now_us,
        due_us=now_us,
        order_us=place_in_lane_us(now_us, old.priority),
        priority=old.priority,
        key=key,
        first_id=old.first_id,
        retry_of=old.id,
    )
    await desk.store.retry(new)
    return await _found(desk, new.id)


@use_case("runs.cancel")
async def cancel(desk: Desk, run_id: str) -> State:
    """Cancel a run, or ask its worker to; the state it is in then. One that has ended is left as it is."""
    return await desk.store.cancel(run_id, desk.clock.now_us())


async def _found(desk: Desk, run_id: str) -> RunView:
    found = (await desk.store.view([run_id]))[0]
    if found is None:
        raise RunNotFound(
            f"There is no run {run_id}.", hint="It may have been pruned; look at `lineshaft runs list`."
        )
    return found
