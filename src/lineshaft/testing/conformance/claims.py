"""Taking runs: what is ready, in order, as the plan says, each under a fence of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lineshaft.core import bounds
from lineshaft.core.states import State
from lineshaft.store.values import Claimed, LaneShare, OpenLane, Slots
from lineshaft.testing.conformance.harness import ANYWHERE_US, World, a_lane, together
from lineshaft.testing.conformance.limits import Limits
from lineshaft.testing.conformance.settling import Settling


@pytest.mark.asyncio
class Claims(Settling, Limits):
    """The port `Claims`."""

    async def test_an_empty_store_gives_nothing(self, world: World) -> None:
        reply = await (await world.worker()).claim()
        assert (list(reply.runs), reply.more, reply.next_due_us, reply.suspects_wait) == (
            [],
            False,
            None,
            False,
        )

    async def test_a_claimed_run_is_what_was_submitted(self, world: World) -> None:
        run = world.new(a_lane(tenant="zeta"), args=b'{"who":"Ada"}', priority=3)
        await world.submitted(run)
        claimed = await (await world.worker(world.other)).take_one()
        assert (claimed.id, claimed.lane, claimed.args, claimed.priority) == (run.id, run.lane, run.args, 3)
        assert (claimed.fence, claimed.attempts, claimed.crashes, claimed.due_us) == (1, 0, 0, run.due_us)
        assert (claimed.first_id, claimed.key, claimed.cancel_requested) == (run.id, None, False)

    async def test_a_claimed_run_is_its_workers_alone(self, world: World) -> None:
        await world.submitted()
        first, second = await world.worker(), await world.worker(world.other)
        claimed = await first.take_one()
        assert await second.take() == []
        seen = await world.view(claimed.id)
        assert (seen.state, seen.worker, seen.fence) == (State.RUNNING, first.id, 1)

    async def test_two_processes_share_a_backlog_without_overlap(self, world: World) -> None:
        ids = await world.submitted(*world.several(500))
        hands = [await world.worker(), await world.worker(world.other)]
        taken: list[str] = []
        while len(taken) < 500:
            replies = await together(*(hand.claim(rows_max=37) for hand in hands for _ in range(2)))
            taken += [run.id for reply in replies for run in reply.runs]
        assert sorted(taken) == sorted(ids)

    async def test_the_fence_rises_with_each_claim(self, world: World) -> None:
        await world.submitted()
        first, second = await world.worker(), await world.worker(world.other)
        fences = []
        for hand in (first, second, first, second):
            claimed = await hand.take_one()
            fences.append(claimed.fence)
            await hand.settle(hand.handed_back(claimed))
        assert fences == sorted(set(fences))

    async def test_a_worker_that_is_not_registered_takes_nothing(self, world: World) -> None:
        # Nobody would ever sweep what a forgotten incarnation holds.
        [run_id] = await world.submitted()
        stopped = await world.worker()
        await world.die(stopped)
        await world.rescue(world.other)
        assert await stopped.take() == []
        assert await world.state(run_id) is State.READY

    async def test_what_was_asked_to_be_cancelled_says_so(self, world: World) -> None:
        [run_id] = await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        await world.other.cancel(run_id, world.clock.now_us())
        await hand.settle(hand.handed_back(claimed))
        assert (await hand.take_one()).cancel_requested

    # Time

    async def test_nothing_starts_before_it_is_due(self, world: World) -> None:
        now, soon, later = world.new(), world.new(delay_s=10), world.new(delay_s=20)
        await world.submitted(now, soon, later)
        hand = await world.worker()
        for wait_s, taken, next_due_us in (
            (0, [now.id], soon.due_us),
            (9.999_999, [], soon.due_us),
            (0.000_001, [soon.id], later.due_us),
            (10, [later.id], None),
        ):
            world.clock.advance(wait_s)
            reply = await hand.claim()
            assert ([run.id for run in reply.runs], reply.next_due_us) == (taken, next_due_us)

    async def test_many_due_at_once_are_all_promoted(self, world: World) -> None:
        count = bounds.CLAIM_ROWS_MAX + 10
        await world.submitted(*(world.new(delay_s=5) for _ in range(count)))
        world.clock.advance(5)
        assert len(await (await world.worker()).take()) == count

    async def test_wall_time_that_goes_back_starts_nothing_early(self, world: World) -> None:
        await world.submitted(world.new(delay_s=10))
        world.clock.set_wall(world.clock.now_us() - 3_600_000_000)
        assert await (await world.worker()).take() == []

    # Order

    async def test_a_lane_goes_by_due_time_less_priority_times_the_ageing_step(self, world: World) -> None:
        step_s = bounds.AGEING_STEP_S
        old = world.new()
        old_and_urgent = world.new(priority=1)
        world.clock.advance(2 * step_s - 1)
        urgent = world.new(priority=2)
        new = world.new()
        unimportant = world.new(priority=-1)
        await world.submitted(unimportant, new, urgent, old, old_and_urgent)
        claimed = await (await world.worker()).take()
        # The urgent one overtakes what waits for less than two steps, and no more than that.
        expected = [old_and_urgent, urgent, old, new, unimportant]
        assert [run.id for run in claimed] == [run.id for run in expected]

    async def test_small_claims_keep_the_order(self, world: World) -> None:
        runs = world.several(20)
        world.clock.advance(1)
        late_but_urgent = world.new(priority=10)
        await world.submitted(*reversed(runs), late_but_urgent)
        hand = await world.worker()
        taken = [run.id for _ in range(7) for run in (await hand.claim(rows_max=3)).runs]
        assert taken[0] == late_but_urgent.id
        assert len(set(taken)) == 21

    # The plan

    async def test_the_plan_sees_every_open_lane_and_its_head(self, world: World) -> None:
        lanes = [
            a_lane("greet"),
            a_lane("part"),
            a_lane("greet", tenant="zeta"),
            a_lane("greet", version="2"),
        ]
        runs = [world.new(lane, priority=number) for number, lane in enumerate(lanes)]
        later = [world.new(lane, priority=-5) for lane in lanes]
        await world.submitted(*later, *runs, world.new(a_lane("later"), delay_s=1))
        seen: list[OpenLane] = []

        def look(open_lanes: Sequence[OpenLane]) -> Sequence[LaneShare]:
            seen.extend(open_lanes)
            return []

        await (await world.worker()).claim(plan=look)
        assert {each.lane: each.head_order_us for each in seen} == {run.lane: run.order_us for run in runs}

    async def test_a_lane_gives_no_more_than_the_plan_says(self, world: World) -> None:
        await world.submitted(*world.several(10), *world.several(10, a_lane(tenant="zeta")))
        reply = await (await world.worker()).claim(rows_max=4)
        tenants = [run.lane.tenant for run in reply.runs]
        assert (tenants.count("acme"), tenants.count("zeta")) == (4, 4)
        assert reply.more

    async def test_a_lane_gives_nothing_later_than_the_plan_says(self, world: World) -> None:
        early = world.new()
        world.clock.advance(1)
        late = world.new()
        await world.submitted(early, late)

        def until_early(lanes: Sequence[OpenLane]) -> Sequence[LaneShare]:
            return [LaneShare(each.lane, 100, early.order_us) for each in lanes]

        hand = await world.worker()
        reply = await hand.claim(plan=until_early)
        assert [run.id for run in reply.runs] == [early.id]
        assert reply.more, "the later one may be taken at once by another claim"
        assert list((await hand.claim(plan=until_early)).runs) == []

    async def test_lanes_that_the_plan_leaves_out_are_left_alone(self, world: World) -> None:
        await world.submitted(world.new(a_lane("greet")), world.new(a_lane("part")))
        hand = await world.worker(None, "part")
        assert [run.lane.task for run in await hand.take()] == ["part"]
        assert (await world.other.counts()) == {State.READY: 1, State.RUNNING: 1}

    async def test_a_plan_that_fails_takes_nothing_and_hurts_nobody(self, world: World) -> None:
        [run_id] = await world.submitted()
        hand = await world.worker()

        def broken(lanes: Sequence[OpenLane]) -> Sequence[LaneShare]:
            raise ZeroDivisionError(len(lanes))

        run = world.new()
        failed, submitted = await together(hand.claim(plan=broken), world.store.submit([run]))
        assert isinstance(failed, ZeroDivisionError)
        assert submitted[0].created
        assert {each.id for each in await hand.take()} == {run_id, run.id}

    async def test_a_claim_asked_for_when_a_submission_is_queued_finds_its_run(self, world: World) -> None:
        hand = await world.worker()
        for _ in range(20):
            run, queued = world.new(), asyncio.Event()

            async def claim_then(queued: asyncio.Event = queued) -> Sequence[Claimed]:
                await queued.wait()
                return (await hand.claim()).runs

            # The first two may be gathered with the others, and were asked for before the run was there.
            early, earlier, _, found = await together(
                hand.claim(), hand.claim(), world.store.submit([run], queued.set), claim_then()
            )
            assert [each.id for each in (*early.runs, *earlier.runs, *found)] == [run.id]

    # Many lanes

    async def test_every_lane_gets_its_turn_however_many_there_are(self, world: World) -> None:
        lanes = [a_lane(tenant=f"tenant-{number}") for number in range(2 * bounds.LANES_VISITED_MAX + 40)]
        await world.submitted(*(world.new(lane) for lane in lanes for _ in range(2)))
        hand = await world.worker()
        after_lane, served, seen_at_once = -1, set(), 0

        def one_each(open_lanes: Sequence[OpenLane]) -> Sequence[LaneShare]:
            nonlocal seen_at_once
            seen_at_once = max(seen_at_once, len(open_lanes))
            return [LaneShare(each.lane, 1, ANYWHERE_US) for each in open_lanes]

        for _ in range(3):
            reply = await hand.claim(plan=one_each, after_lane=after_lane)
            after_lane = reply.last_lane
            served |= {run.lane for run in reply.runs}
        assert served == set(lanes)
        assert seen_at_once <= bounds.LANES_VISITED_MAX
        assert len(await hand.take()) + len(served) >= len(lanes)

    async def test_a_claim_from_the_middle_starts_over_at_the_smallest(self, world: World) -> None:
        lanes = [a_lane(tenant=f"tenant-{number}") for number in range(10)]
        await world.submitted(*(world.new(lane) for lane in lanes))
        after = sorted(lane.id for lane in lanes)[6]
        seen: list[OpenLane] = []

        def look(open_lanes: Sequence[OpenLane]) -> Sequence[LaneShare]:
            seen.extend(open_lanes)
            return []

        await (await world.worker()).claim(plan=look, after_lane=after)
        ids = sorted(lane.id for lane in lanes)
        assert [each.lane.id for each in seen] == ids[7:] + ids[:7]

    async def test_closed_lanes_hide_nothing_behind_them(self, world: World) -> None:
        closed = [a_lane("closed", tenant=f"tenant-{number}") for number in range(bounds.LANES_VISITED_MAX)]
        await world.submitted(*(world.new(lane) for lane in closed), world.new(a_lane("greet")))
        hand = await world.worker()
        after_lane, found = -1, []
        for _ in range(2):
            reply = await hand.claim(Slots("task:greet", 1), after_lane=after_lane)
            after_lane = reply.last_lane
            found += [run.lane.task for run in reply.runs]
            if not found:
                assert reply.more, "there are lanes that this claim has not looked at"
        assert found == ["greet"]

    # Start marks and progress

    async def test_a_start_is_marked_once_the_run_is_held(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        assert await hand.store.mark_started(claimed.id, claimed.fence, hand.id)
        assert (await world.view(claimed.id)).started_us is not None

    async def test_who_lost_the_fence_cannot_mark_a_start(self, world: World) -> None:
        await world.submitted()
        first, second = await world.worker(), await world.worker(world.other)
        stale = await first.take_one()
        await world.die(first)
        await world.rescue()
        assert not await first.store.mark_started(stale.id, stale.fence, first.id)
        held = await second.take_one()
        assert not await first.store.mark_started(held.id, stale.fence, first.id)
        assert not await first.store.mark_started(held.id, held.fence, first.id)
        assert not await second.store.mark_started(held.id, stale.fence, second.id)
        assert (await world.view(held.id)).started_us is None
        await second.succeed(held)
        assert not await second.store.mark_started(held.id, held.fence, second.id)

    async def test_the_newest_progress_is_kept_until_the_run_finishes(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        assert await world.other.progress(claimed.id) is None
        await hand.store.report([(claimed.id, b"[1,3]"), (claimed.id, b"[2,3]")])
        await hand.store.report([("no-such-run", b"[9,9]")])
        assert await world.other.progress(claimed.id) == b"[2,3]"
        await hand.store.report([(claimed.id, b"[3,3]")])
        assert await world.other.progress(claimed.id) == b"[3,3]"
        assert await world.other.progress("no-such-run") is None
        await hand.succeed(claimed)
        assert await world.other.progress(claimed.id) is None

    async def test_progress_goes_with_a_run_that_is_cancelled_between_attempts(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        await hand.store.report([(claimed.id, b"[1,3]")])
        assert await hand.settle(hand.handed_back(claimed)) == [True]
        assert await world.other.progress(claimed.id) == b"[1,3]"
        assert await world.store.cancel(claimed.id, world.clock.now_us()) is State.CANCELLED
        assert await world.other.progress(claimed.id) is None
