"""Returning what became of runs: under its fence or not at all."""

from __future__ import annotations

import pytest

from lineshaft.core import bounds
from lineshaft.core.states import FINAL, FailureClass, State
from lineshaft.store.values import Failure
from lineshaft.testing.conformance.harness import Conformance, World, a_failure, a_lane, together


@pytest.mark.asyncio
class Settling(Conformance):
    """`Claims.settle`."""

    async def test_a_run_that_succeeded_is_history(self, world: World) -> None:
        run = world.new(args=b'{"who":"Ada"}', priority=2)
        await world.submitted(run)
        hand = await world.worker()
        world.clock.advance(5)
        claimed = await hand.take_one()
        assert await hand.succeed(claimed) == [True]
        seen = await world.view(run.id)
        assert (seen.state, seen.result, seen.failure) == (State.SUCCEEDED, b'"done"', None)
        assert (seen.lane, seen.args, seen.priority, seen.due_us) == (run.lane, run.args, 2, run.due_us)
        assert (seen.attempts, seen.worker, seen.fence) == (1, hand.id, claimed.fence)
        now_us = world.clock.now_us()
        assert (seen.started_us, seen.finished_us) == (now_us - 2_000, now_us)
        assert (seen.wall_us, seen.cpu_us) == (2_000, 700)
        assert await world.other.counts() == {State.SUCCEEDED: 1}

    @pytest.mark.parametrize("state", sorted(FINAL))
    async def test_every_end_is_final(self, world: World, state: State) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        assert await hand.settle(hand.ended(claimed, state)) == [True]
        assert await hand.settle(hand.ended(claimed, State.FAILED)) == [False]
        assert await hand.settle(hand.retried(claimed)) == [False]
        assert await world.state(claimed.id) is state
        assert await world.other.counts() == {state: 1}

    async def test_a_failure_says_what_and_where(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        failure = Failure(FailureClass.TIMEOUT, "shop.Slow", 'a "quoted" \n snö \x00 end', "line 1\nline 2")
        await hand.settle(hand.ended(claimed, State.FAILED, failure=failure))
        assert (await world.view(claimed.id)).failure == failure

    @pytest.mark.parametrize("size", [bounds.INLINE_BYTES_MAX - 2, bounds.INLINE_BYTES_MAX, 300_000])
    async def test_results_come_back_as_they_were(self, world: World, size: int) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        result = '"snö \\u0000 '.encode() + b"y" * size + b'"'
        await hand.settle(hand.ended(claimed, result=result))
        assert (await world.view(claimed.id)).result == result
        [finished] = await world.other.finished([claimed.id])
        assert finished.result == result

    async def test_large_arguments_last_into_history(self, world: World) -> None:
        args = b'"' + b"x" * 50_000 + b'"'
        run_id = await world.finished(State.SUCCEEDED, world.new(args=args))
        assert (await world.view(run_id)).args == args

    async def test_none_is_settled_as_none(self, world: World) -> None:
        assert list(await world.store.settle([])) == []

    # Fences

    async def test_who_lost_the_fence_settles_nothing(self, world: World) -> None:
        await world.submitted()
        first, second = await world.worker(), await world.worker(world.other)
        stale = await first.take_one()
        await world.die(first)
        await world.rescue()
        # Between the two holders …
        assert await first.succeed(stale) == [False]
        held = await second.take_one()
        # … and under the second one, by worker, by fence, and by both.
        lost = first.ended(stale, result=b'"' + b"z" * 10_000 + b'"')
        claims = [lost, lost._replace(fence=held.fence), lost._replace(worker=second.id)]
        for outcome in claims:
            assert await first.settle(outcome) == [False]
            assert await first.settle(outcome._replace(state=State.SCHEDULED)) == [False]
        seen = await world.view(held.id)
        assert (seen.state, seen.worker, seen.attempts, seen.result) == (State.RUNNING, second.id, 0, None)
        assert list(await world.other.attempts(held.id)) == []
        assert await second.succeed(held) == [True]
        assert (await world.view(held.id)).result == b'"done"'

    async def test_one_stale_outcome_among_many_is_left_out_alone(self, world: World) -> None:
        await world.submitted(*world.several(100))
        hand = await world.worker()
        runs = await hand.take()
        outcomes = [hand.ended(run) if number % 2 else hand.retried(run) for number, run in enumerate(runs)]
        outcomes[40] = outcomes[40]._replace(fence=7)
        outcomes[41] = outcomes[41]._replace(fence=7)
        kept = await hand.settle(*outcomes)
        assert [number for number, held in enumerate(kept) if not held] == [40, 41]
        assert await world.states([runs[40].id, runs[41].id]) == [State.RUNNING] * 2
        expected = {State.SUCCEEDED: 49, State.SCHEDULED: 49, State.RUNNING: 2}
        assert await world.other.counts() == expected

    async def test_settling_an_unknown_run_is_refused(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        unknown = hand.ended(claimed)._replace(run_id="00000000-0000-7000-8000-000000000000")
        assert await hand.settle(unknown, hand.ended(claimed)) == [False, True]

    async def test_two_settle_at_once_and_one_is_written(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        results = await together(
            world.store.settle([hand.ended(claimed, State.SUCCEEDED)]),
            world.other.settle([hand.ended(claimed, State.FAILED)]),
            world.store.settle([hand.retried(claimed)]),
        )
        assert sorted(kept for [kept] in results) == [False, False, True]
        assert await world.count() == 1

    # Outcomes that are not the end

    async def test_a_retry_waits_and_its_attempt_is_recorded(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        assert await hand.settle(hand.retried(claimed, pause_s=10)) == [True]
        seen = await world.view(claimed.id)
        assert (seen.state, seen.attempts, seen.worker) == (State.SCHEDULED, 1, None)
        assert seen.failure == a_failure()
        assert seen.due_us == world.clock.now_us() + 10_000_000
        [attempt] = await world.other.attempts(claimed.id)
        assert (attempt.number, attempt.fence, attempt.failure) == (1, claimed.fence, a_failure())
        assert (attempt.wall_us, attempt.cpu_us) == (2_000, 700)
        assert await hand.take() == []
        world.clock.advance(10)
        again = await hand.take_one()
        assert (again.id, again.attempts) == (claimed.id, 1)
        assert again.fence > claimed.fence

    @pytest.mark.parametrize("priority", [-3, 5])
    async def test_a_retry_is_due_when_it_was_said_whatever_its_priority(
        self, world: World, priority: int
    ) -> None:
        run = world.new(priority=priority)
        await world.submitted(run)
        hand = await world.worker()
        await hand.settle(hand.retried(await hand.take_one(), pause_s=10))
        assert (await world.view(run.id)).due_us == world.clock.now_us() + 10_000_000
        world.clock.advance(9)
        assert await hand.take() == []
        world.clock.advance(1)
        later = world.new(priority=priority)
        await world.submitted(later)
        assert [claimed.id for claimed in await hand.take()] == [run.id, later.id], "and keeps its place"

    async def test_attempts_are_recorded_one_by_one(self, world: World) -> None:
        [run_id] = await world.submitted()
        hand = await world.worker()
        for number in range(3):
            claimed = await hand.take_one()
            failure = a_failure(f"attempt {number}")
            await hand.settle(hand.retried(claimed, pause_s=0)._replace(failure=failure))
        await hand.succeed(await hand.take_one())
        assert (await world.view(run_id)).attempts == 4
        recorded = await world.other.attempts(run_id)
        assert [attempt.number for attempt in recorded] == [1, 2, 3]
        messages = [attempt.failure.message for attempt in recorded if attempt.failure is not None]
        assert messages == ["attempt 0", "attempt 1", "attempt 2"]

    async def test_what_a_worker_settles_before_it_leaves_is_kept_whoever_settles_after_that(
        self, world: World
    ) -> None:
        for _ in range(5):
            first, second = await world.worker(), await world.worker()
            await world.submitted()
            settled = first.ended(await first.take_one())
            await world.submitted()
            later = second.ended(await second.take_one())
            # The first write keeps a writer busy, so that the others are gathered.
            busy = world.store.submit(world.several(500))
            work = first.settle(settled), world.store.unregister(first.id), second.settle(later)
            results = await together(busy, *work)
            assert results[1:] == [[True], None, [True]]
            await second.settle(*(second.ended(run) for run in await second.take()))

    async def test_a_run_handed_back_is_uncharged(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        await hand.store.mark_started(claimed.id, claimed.fence, hand.id)
        assert await hand.settle(hand.handed_back(claimed)) == [True]
        seen = await world.view(claimed.id)
        assert (seen.state, seen.attempts, seen.crashes) == (State.READY, 0, 0)
        assert (seen.worker, seen.started_us, seen.failure) == (None, None, None)
        assert list(await world.other.attempts(claimed.id)) == []
        assert (await hand.take_one()).attempts == 0

    async def test_a_run_handed_back_keeps_its_place(self, world: World) -> None:
        first, second = world.new(priority=1), world.new()
        await world.submitted(first, second)
        hand = await world.worker()
        claimed = await hand.claim(rows_max=1)
        await hand.settle(hand.handed_back(claimed.runs[0]))
        assert [run.id for run in await hand.take()] == [first.id, second.id]

    async def test_a_parked_run_is_kept_and_not_claimed(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        parked = hand.ended(claimed, State.PARKED, charged=False, failure=a_failure("no such argument"))
        assert await hand.settle(parked) == [True]
        seen = await world.view(claimed.id)
        assert (seen.state, seen.attempts, seen.failure) == (State.PARKED, 0, a_failure("no such argument"))
        assert await hand.take() == []
        assert (await world.rescue()).returned == 0
        assert await world.store.park(world.clock.now_us()) == 0
        # The next worker may accept what this one refused.
        assert (await (await world.worker()).take_one()).id == claimed.id

    async def test_outcomes_of_all_kinds_go_together(self, world: World) -> None:
        await world.submitted(*world.several(4, a_lane(tenant="zeta")))
        hand = await world.worker()
        runs = await hand.take()
        outcomes = [
            hand.ended(runs[0]),
            hand.retried(runs[1]),
            hand.handed_back(runs[2]),
            hand.ended(runs[3], State.FAILED),
        ]
        assert await hand.settle(*outcomes) == [True] * 4
        states = [State.SUCCEEDED, State.SCHEDULED, State.READY, State.FAILED]
        assert await world.states([run.id for run in runs]) == states
