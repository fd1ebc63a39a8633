"""Every reason that `why` can give, each brought about in a real store. The clock is ours: nothing here waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from lineshaft.core.clock import Clock
from lineshaft.core.errors import RunNotFound
from lineshaft.core.ident import SystemChance
from lineshaft.core.states import FailureClass, State
from lineshaft.engine.why import Reason, Why, why
from lineshaft.store.sqlite.alive import Alive
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import (
    Claimed,
    ClaimRequest,
    Failure,
    Lane,
    LaneShare,
    LimitTerms,
    NewRun,
    NewWorker,
    Outcome,
    Terms,
)

SECOND = 1_000_000
LANE = Lane("default", "charge", "1", "acme")
ERROR = Failure(FailureClass.ERROR, "builtins.ValueError", "the bank refused")
LIMIT = LimitTerms("default", "charge", "1", 2, None, per_tenant=True)
RATE = LimitTerms("default", None, None, 1, 60 * SECOND, per_tenant=False)


class OurClock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.us = 1_800_000_000 * SECOND

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / SECOND

    def boot_us(self) -> int:
        return self.us

    def boot_id(self) -> str:
        return "this start"

    async def sleep(self, seconds: float) -> None:
        self.us += int(seconds * SECOND)


class Shop:
    """A store, and the moves that bring runs into every state."""

    def __init__(self, path: Path) -> None:
        self.clock = OurClock()
        clock: Clock = self.clock
        self.store = SqliteStore(path, clock)
        self.chance = SystemChance(seed=1)

    async def submit(self, count: int = 1, *, lane: Lane = LANE, delay_s: int = 0) -> list[str]:
        now_us = self.clock.now_us()
        due_us = now_us + delay_s * SECOND
        ids = self.chance.run_ids(now_us, count)
        await self.store.submit(
            [NewRun(run_id, lane, b"{}", now_us, due_us, due_us + n) for n, run_id in enumerate(ids)]
        )
        return ids

    async def worker(
        self,
        tasks: Sequence[tuple[str, str]] = (("charge", "1"),),
        queues: Sequence[str] = (),
        terms: Terms | None = None,
    ) -> int:
        now_us = self.clock.now_us()
        return await self.store.register(
            NewWorker("ada", 4711, now_us, tuple(queues), tuple(tasks), 15 * SECOND, terms or Terms())
        )

    async def claim(
        self, worker: int, count: int = 1, limits: Sequence[LimitTerms] = ()
    ) -> Sequence[Claimed]:
        def plan(lanes):
            gates = {each.lane: tuple(limit.gate(each.lane.tenant) for limit in limits) for each in lanes}
            return [LaneShare(each.lane, count, 2**62, gates[each.lane]) for each in lanes]

        reply = await self.store.claim(
            ClaimRequest(worker, self.clock.now_us(), plan, after_lane=-1, idle=True)
        )
        return reply.runs

    async def settle(self, worker: int, run: Claimed, state: State, **fields) -> None:
        now_us = self.clock.now_us()
        outcome = Outcome(run.id, run.fence, worker, state, now_us, now_us + 1_500, 1_500, **fields)
        assert await self.store.settle([outcome]) == [True]

    async def die(self) -> None:
        """All workers stall past their leases, and the sweep comes by."""
        self.clock.us += 20 * SECOND
        await self.store.rescue(self.clock.now_us())

    async def crash(self, worker: int) -> None:
        """Let the process of a worker die, and everybody notice."""
        Alive(self.store.path).drop(worker)
        await self.store.rescue(self.clock.now_us())

    async def why(self, run_id: str) -> Why:
        return await why(self.store, self.clock, run_id)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(tmp_path / "shop.db")
    yield made
    await made.store.close()


async def test_there_is_no_such_run(shop: Shop) -> None:
    with pytest.raises(RunNotFound):
        await shop.why("nothing")


async def test_due_later(shop: Shop) -> None:
    [run_id] = await shop.submit(delay_s=7_500)
    answer = await shop.why(run_id)
    assert answer.reason is Reason.DUE_TIME
    assert answer.until_us == shop.clock.us + 7_500 * SECOND
    assert answer.sentence == "It waits for its due time, 2027-01-15 10:05:00 UTC, in 2 h 5 m."


async def test_retried_later(shop: Shop) -> None:
    worker = await shop.worker(terms=Terms(attempts=(("charge", "1", 5),)))
    [run_id] = await shop.submit()
    [run] = await shop.claim(worker)
    due_us = shop.clock.us + 10 * SECOND
    await shop.settle(worker, run, State.SCHEDULED, failure=ERROR, due_us=due_us, order_us=due_us)
    answer = await shop.why(run_id)
    assert answer.reason is Reason.RETRY
    assert answer.until_us == due_us
    assert "attempt 2 of 5 at 2027-01-15 08:00:10 UTC, in 10 s" in answer.sentence
    assert "Attempt 1 failed: ValueError: the bank refused." in answer.sentence


async def test_no_worker_is_alive(shop: Shop) -> None:
    [run_id] = await shop.submit()
    assert (await shop.why(run_id)).reason is Reason.NO_WORKER
    await shop.worker()
    await shop.die()
    assert (await shop.why(run_id)).reason is Reason.NO_WORKER


async def test_what_has_become_due_is_like_ready(shop: Shop) -> None:
    [run_id] = await shop.submit(delay_s=60)
    shop.clock.us += 61 * SECOND
    assert (await shop.why(run_id)).reason is Reason.NO_WORKER


async def test_no_worker_knows_the_version(shop: Shop) -> None:
    await shop.worker(tasks=[("charge", "2"), ("other", "1")])
    [run_id] = await shop.submit()
    answer = await shop.why(run_id)
    assert answer.reason is Reason.NO_WORKER_FOR_TASK
    assert "none of the 1 live worker" in answer.sentence
    assert "version 2" in answer.sentence


async def test_no_worker_serves_the_queue(shop: Shop) -> None:
    await shop.worker(queues=["reports"])
    [run_id] = await shop.submit()
    answer = await shop.why(run_id)
    assert answer.reason is Reason.NO_WORKER_FOR_QUEUE
    assert "'reports'" in answer.sentence


async def test_parked_for_its_name(shop: Shop) -> None:
    await shop.worker(tasks=[("other", "1")])
    [run_id] = await shop.submit()
    assert await shop.store.park(shop.clock.now_us()) == 1
    answer = await shop.why(run_id)
    assert (answer.state, answer.reason) == (State.PARKED, Reason.PARKED_UNKNOWN_TASK)
    assert "no live worker knows task 'charge'" in answer.sentence


async def test_parked_for_its_arguments(shop: Shop) -> None:
    worker = await shop.worker()
    [run_id] = await shop.submit()
    [run] = await shop.claim(worker)
    refusal = Failure(FailureClass.RESULT, "lineshaft.core.errors.InvalidArguments", "cents is missing")
    await shop.settle(worker, run, State.PARKED, failure=refusal, charged=False)
    answer = await shop.why(run_id)
    assert answer.reason is Reason.PARKED_ARGUMENTS_REFUSED
    assert "cents is missing" in answer.sentence


async def test_running(shop: Shop) -> None:
    worker = await shop.worker(terms=Terms(attempts=(("charge", "1", 3),)))
    [run_id] = await shop.submit()
    await shop.claim(worker)
    shop.clock.us += 12 * SECOND
    answer = await shop.why(run_id)
    assert answer.reason is Reason.RUNNING
    assert [(holder.worker, holder.host, holder.pid) for holder in answer.holders] == [(worker, "ada", 4711)]
    assert answer.sentence == (
        f"Worker {worker} (process 4711 on ada) executes attempt 1 of 3 since 2027-01-15 08:00:00 UTC, for 12 s."
    )


async def test_asked_to_cancel(shop: Shop) -> None:
    worker = await shop.worker()
    [run_id] = await shop.submit()
    await shop.claim(worker)
    assert await shop.store.cancel(run_id, shop.clock.now_us()) is State.RUNNING
    assert (await shop.why(run_id)).reason is Reason.CANCEL_REQUESTED


async def test_its_worker_has_died_and_nobody_noticed_yet(shop: Shop) -> None:
    worker = await shop.worker()
    [run_id] = await shop.submit()
    await shop.claim(worker)
    shop.clock.us += 20 * SECOND
    answer = await shop.why(run_id)
    assert answer.reason is Reason.WORKER_DIED
    assert "No worker is alive" in answer.sentence
    await shop.worker()
    assert "within seconds" in (await shop.why(run_id)).sentence


async def test_suspects_wait_to_run_alone(shop: Shop) -> None:
    worker = await shop.worker()
    ids = await shop.submit(4)
    assert len(await shop.claim(worker, 4)) == 4
    await shop.die()
    await shop.worker()
    assert {(await shop.why(run_id)).reason for run_id in ids} == {Reason.SUSPECT}


async def test_who_kills_workers_alone_is_given_a_pause(shop: Shop) -> None:
    [run_id] = await shop.submit()
    for _ in range(2):
        worker = await shop.worker()
        [_run] = await shop.claim(worker)
        await shop.crash(worker)
    answer = await shop.why(run_id)
    assert answer.reason is Reason.CRASH_PAUSE
    assert "2 times by now" in answer.sentence
    assert answer.until_us is not None
    assert answer.until_us > shop.clock.us


async def test_a_limit_names_who_holds_its_slots(shop: Shop) -> None:
    worker = await shop.worker(terms=Terms(limits=(LIMIT,)))
    *_, third = await shop.submit(3)
    assert len(await shop.claim(worker, 10, [LIMIT])) == 2
    answer = await shop.why(third)
    assert answer.reason is Reason.LIMIT
    assert answer.limit == "task:charge/tenant:acme"
    assert [(holder.worker, holder.held) for holder in answer.holders] == [(worker, 2)]
    assert answer.sentence == (
        "It waits for the limit of 2 at once of task 'charge' for tenant 'acme':"
        f" worker {worker} (process 4711 on ada) holds 2."
    )
    [other] = await shop.submit(lane=LANE._replace(tenant="globex"))
    assert (await shop.why(other)).reason is Reason.NEXT


async def test_a_limit_that_another_worker_does_not_have_holds_nothing_back(shop: Shop) -> None:
    worker = await shop.worker(terms=Terms(limits=(LIMIT,)))
    *_, third = await shop.submit(3)
    await shop.claim(worker, 10, [LIMIT])
    await shop.worker()
    assert (await shop.why(third)).reason is Reason.NEXT


async def test_a_rate_says_when_it_opens(shop: Shop) -> None:
    worker = await shop.worker(terms=Terms(limits=(RATE,)))
    _, second = await shop.submit(2)
    assert len(await shop.claim(worker, 10, [RATE])) == 1
    answer = await shop.why(second)
    assert answer.reason is Reason.RATE
    assert answer.until_us is not None
    assert shop.clock.us + 59 * SECOND < answer.until_us <= shop.clock.us + 61 * SECOND
    assert "the rate of 1 in 1 m of queue 'default'" in answer.sentence
    shop.clock.us = answer.until_us
    await shop.worker(terms=Terms(limits=(RATE,)))
    assert (await shop.why(second)).reason is Reason.NEXT


async def test_behind_others_and_next(shop: Shop) -> None:
    await shop.worker()
    ids = await shop.submit(4)
    answers = [await shop.why(run_id) for run_id in ids]
    assert [answer.reason for answer in answers] == [Reason.NEXT, *[Reason.BEHIND] * 3]
    assert [answer.ahead for answer in answers] == [0, 1, 2, 3]
    assert "3 runs are before it in its lane" in answers[3].sentence


@pytest.mark.parametrize(
    ("state", "fields", "told"),
    [
        (
            State.SUCCEEDED,
            {"result": b'"ok"'},
            "It succeeded at 2027-01-15 08:00:00 UTC after 1 attempt, in 1.5 ms.",
        ),
        (State.FAILED, {"failure": ERROR}, "after 1 attempt: ValueError: the bank refused."),
        (State.CANCELLED, {}, "It was cancelled at 2027-01-15 08:00:00 UTC after 1 attempt."),
    ],
)
async def test_finished(shop: Shop, state: State, fields: dict, told: str) -> None:
    worker = await shop.worker()
    [run_id] = await shop.submit()
    [run] = await shop.claim(worker)
    await shop.settle(worker, run, state, **fields)
    answer = await shop.why(run_id)
    assert (answer.state, answer.reason) == (state, Reason(state))
    assert told in answer.sentence


async def test_nobody_knows_what_became_of_work_done_at_most_once(shop: Shop) -> None:
    worker = await shop.worker()
    [run_id] = await shop.submit()
    [run] = await shop.claim(worker)
    assert await shop.store.mark_started(run.id, run.fence, worker)
    await shop.die()
    answer = await shop.why(run_id)
    assert answer.reason is Reason.OUTCOME_UNKNOWN
    assert "nobody knows whether it happened" in answer.sentence


def test_every_reason_of_this_engine_is_shown_above() -> None:
    text = Path(__file__).read_text()
    elsewhere = {Reason(state) for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)}
    later = {Reason(state) for state in (State.WAITING, State.PAUSED, State.COMPENSATING)}
    assert [each for each in set(Reason) - elsewhere - later if f"Reason.{each.name}" not in text] == []
