"""Retrying and cancelling as use-cases, on a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lineshaft.control import runs
from lineshaft.control.desk import Desk
from lineshaft.core.codec import digest
from lineshaft.core.errors import InvalidTransition, RunNotFound
from lineshaft.core.states import FailureClass, State
from lineshaft.engine.why import Reason
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import (
    Accepted,
    ClaimRequest,
    Failure,
    Lane,
    LaneShare,
    NewRun,
    NewWorker,
    Outcome,
    RunFilter,
    RunView,
    SubmissionKey,
)

LANE = Lane("payments", "charge", "1", "acme")
ARGS = b'{"order":1}'
HOUR_US = 3_600_000_000


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = SqliteStore(tmp_path / "shop.db")
    yield Desk(store)
    await store.close()


async def submit(
    desk: Desk, *, key: str | None = None, args: bytes = ARGS, retry_failed: bool = False, delay_us: int = 0
) -> Accepted:
    now_us = desk.clock.now_us()
    due_us = now_us + delay_us
    held = None if key is None else SubmissionKey(key, digest(args).hex(), 5 * HOUR_US, retry_failed)
    [run_id] = desk.chance.run_ids(now_us, 1)
    [accepted] = await desk.store.submit(
        [NewRun(run_id, LANE, args, now_us, due_us, due_us, priority=3, key=held)]
    )
    return accepted


async def end(desk: Desk, state: State) -> str:
    """Execute what is ready, and have it end so."""
    now_us = desk.clock.now_us()
    worker = await desk.store.register(NewWorker("ada", 1, now_us, (), (("charge", "1"),), HOUR_US))
    reply = await desk.store.claim(
        ClaimRequest(
            worker, now_us, lambda lanes: [LaneShare(each.lane, 10, 2**62) for each in lanes], -1, True
        )
    )
    [run] = reply.runs
    failure = Failure(FailureClass.ERROR, "builtins.ValueError", "no") if state is State.FAILED else None
    await desk.store.settle([Outcome(run.id, run.fence, worker, state, now_us, now_us, failure=failure)])
    return run.id


async def view(desk: Desk, run_id: str) -> RunView:
    return (await runs.show(desk, run_id)).run


@pytest.mark.parametrize("ended", [State.FAILED, State.CANCELLED, State.OUTCOME_UNKNOWN])
async def test_a_retry_is_a_new_run_linked_to_the_old_one(desk: Desk, ended: State) -> None:
    await submit(desk)
    old_id = await end(desk, ended)
    new = await runs.retry(desk, old_id)
    assert new.id != old_id
    assert (new.state, new.attempts) == (State.READY, 0)
    assert (new.retry_of, new.first_id) == (old_id, old_id)
    assert (new.lane, new.args, new.priority) == (LANE, ARGS, 3)
    old = await runs.show(desk, old_id)
    assert (old.run.state, old.retried_by) == (ended, new.id)


async def test_a_retry_of_a_retry_keeps_the_first_of_its_lineage(desk: Desk) -> None:
    await submit(desk)
    first = await end(desk, State.FAILED)
    second = await runs.retry(desk, first)
    assert await end(desk, State.FAILED) == second.id
    third = await runs.retry(desk, second.id)
    assert (third.retry_of, third.first_id) == (second.id, first)


async def test_arguments_that_lie_apart_are_taken_along(desk: Desk) -> None:
    args = b'{"text":"' + b"x" * 10_000 + b'"}'
    await submit(desk, args=args)
    new = await runs.retry(desk, await end(desk, State.FAILED))
    assert new.args == args


async def test_the_key_follows_to_the_newest_run(desk: Desk) -> None:
    await submit(desk, key="order-1")
    old_id = await end(desk, State.FAILED)
    assert await submit(desk, key="order-1") == (old_id, False)
    new = await runs.retry(desk, old_id)
    assert new.key == "order-1"
    assert await submit(desk, key="order-1") == (new.id, False)
    assert await submit(desk, key="order-1", retry_failed=True) == (new.id, False)


async def test_a_submission_that_replaces_a_failed_holder_is_linked_too(desk: Desk) -> None:
    await submit(desk, key="order-1")
    old_id = await end(desk, State.FAILED)
    new_id, created = await submit(desk, key="order-1", retry_failed=True)
    assert created
    new = await view(desk, new_id)
    assert (new.retry_of, new.first_id) == (old_id, old_id)
    with pytest.raises(InvalidTransition, match=new_id):
        await runs.retry(desk, old_id)


async def test_what_succeeded_is_not_retried(desk: Desk) -> None:
    await submit(desk)
    done = await end(desk, State.SUCCEEDED)
    with pytest.raises(InvalidTransition, match="has succeeded"):
        await runs.retry(desk, done)


async def test_what_has_not_ended_is_not_retried(desk: Desk) -> None:
    run_id, _ = await submit(desk)
    with pytest.raises(InvalidTransition, match="is ready"):
        await runs.retry(desk, run_id)


async def test_nothing_is_retried_twice(desk: Desk) -> None:
    await submit(desk, key="order-1")
    old_id = await end(desk, State.FAILED)
    new = await runs.retry(desk, old_id)
    with pytest.raises(InvalidTransition, match=new.id):
        await runs.retry(desk, old_id)
    assert len(await runs.listing(desk, RunFilter())) == 2
    assert await submit(desk, key="order-1") == (new.id, False)


@pytest.mark.parametrize("args", [ARGS, b'{"order":2}'])
async def test_a_key_that_other_work_holds_by_now_is_not_taken_from_it(desk: Desk, args: bytes) -> None:
    await submit(desk, key="order-1")
    old_id = await end(desk, State.FAILED)
    await desk.store.prune(0, desk.clock.now_us() + 6 * HOUR_US)
    other, created = await submit(desk, key="order-1", args=args)
    assert created
    with pytest.raises(InvalidTransition, match="its key 'order-1' is held by"):
        await runs.retry(desk, old_id)
    assert await submit(desk, key="order-1", args=args) == (other, False)


async def test_a_key_that_nobody_holds_any_more_is_taken_again(desk: Desk) -> None:
    await submit(desk, key="order-1")
    old_id = await end(desk, State.FAILED)
    await desk.store.prune(0, desk.clock.now_us() + 6 * HOUR_US)
    new = await runs.retry(desk, old_id)
    assert await submit(desk, key="order-1") == (new.id, False)


async def test_there_is_no_such_run(desk: Desk) -> None:
    for act in (runs.show, runs.why, runs.retry, runs.cancel):
        with pytest.raises(RunNotFound):
            await act(desk, "nothing")


async def test_cancel(desk: Desk) -> None:
    run_id, _ = await submit(desk, delay_us=HOUR_US)
    assert await runs.cancel(desk, run_id) is State.CANCELLED
    assert await runs.cancel(desk, run_id) is State.CANCELLED
    assert (await runs.why(desk, run_id)).reason is Reason.CANCELLED
