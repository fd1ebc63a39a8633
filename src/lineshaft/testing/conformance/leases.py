"""Workers, their leases, and what is done for the dead ones."""

from __future__ import annotations

import pytest

from lineshaft.core import bounds
from lineshaft.core.states import State
from lineshaft.testing.conformance.harness import LEASE_S, World, a_failure, a_key, a_lane, together
from lineshaft.testing.conformance.killers import Killers


@pytest.mark.asyncio
class Leases(Killers):
    """The port `Leases`."""

    # Registering

    async def test_every_start_is_a_new_incarnation(self, world: World) -> None:
        first = await world.worker()
        second = await world.worker(world.other)
        await world.store.unregister(first.id)
        third = await world.worker()
        assert first.id < second.id < third.id

    async def test_a_worker_is_listed_with_what_it_knows(self, world: World) -> None:
        await world.submitted(*world.several(3))
        hand = await world.worker(None, "greet", "part")
        await hand.claim(rows_max=2)
        [seen] = await world.other.workers()
        assert (seen.id, seen.host, seen.pid, seen.alive, seen.held) == (hand.id, "workshop", 4711, True, 2)
        assert (seen.queues, seen.tasks) == ((), (("greet", "1"), ("part", "1")))
        assert seen.started_us == world.clock.now_us()

    # Beating

    async def test_a_worker_that_beats_stays_alive(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        for _ in range(6):
            world.clock.advance(LEASE_S * 0.9)
            assert hand.beat()
            assert (await world.rescue(world.other)).workers == ()
        assert await hand.succeed(claimed) == [True]

    async def test_a_worker_that_does_not_is_dead(self, world: World) -> None:
        hand = await world.worker()
        world.clock.advance(LEASE_S - 0.001)
        assert (await world.rescue(world.other)).workers == ()
        world.clock.advance(0.002)
        [seen] = await world.other.workers()
        assert not seen.alive
        assert (await world.rescue(world.other)).workers == (hand.id,)
        assert list(await world.other.workers()) == []
        assert not hand.beat()

    async def test_wall_time_decides_no_lease(self, world: World) -> None:
        hand = await world.worker()
        for hour in (-1, 1):
            world.clock.set_wall(world.clock.now_us() + hour * 3_600_000_000)
            assert (await world.rescue(world.other)).workers == ()
            assert hand.beat()

    async def test_a_lease_from_before_a_restart_of_the_machine_is_over(self, world: World) -> None:
        ids = await world.submitted(*world.several(2))
        hand = await world.worker()
        held = await hand.take()
        world.clock.reboot()
        assert not hand.beat()
        assert (await world.rescue(world.other)).workers == (hand.id,)
        assert await hand.succeed(*held) == [False, False]
        assert await world.states(ids) == [State.READY] * 2

    # Leaving

    async def test_who_leaves_hands_back_what_it_held(self, world: World) -> None:
        await world.submitted(*world.several(3))
        leaving, staying = await world.worker(), await world.worker(world.other)
        held = await leaving.take()
        await world.store.unregister(leaving.id)
        assert not leaving.beat()
        assert await leaving.succeed(*held) == [False] * 3
        again = await staying.take()
        assert {(run.id, run.attempts, run.crashes) for run in again} == {(run.id, 0, 0) for run in held}
        assert [worker.id for worker in await world.other.workers()] == [staying.id]

    async def test_who_leaves_in_the_middle_of_at_most_once_work_leaves_it_unknown(
        self, world: World
    ) -> None:
        await world.submitted(*world.several(2))
        leaving = await world.worker()
        begun, not_begun = await leaving.take()
        await leaving.store.mark_started(begun.id, begun.fence, leaving.id)
        await world.store.unregister(leaving.id)
        await world.die(leaving)
        await world.rescue(world.other)
        assert await world.states([begun.id, not_begun.id]) == [State.OUTCOME_UNKNOWN, State.READY]

    async def test_leaving_twice_does_no_harm(self, world: World) -> None:
        hand = await world.worker()
        await world.store.unregister(hand.id)
        await world.other.unregister(hand.id)
        assert list(await world.store.workers()) == []

    # Rescuing

    async def test_a_run_of_a_dead_worker_returns_uncharged(self, world: World) -> None:
        ids = await world.submitted(*world.several(10))
        dead, alive = await world.worker(), await world.worker(world.other)
        await dead.take()
        await world.die(dead)
        rescued = await world.rescue(world.other)
        assert (rescued.returned, rescued.failed, rescued.unknown, rescued.workers) == (
            10,
            (),
            (),
            (dead.id,),
        )
        views = [await world.view(run_id) for run_id in ids]
        assert {(seen.state, seen.attempts, seen.crashes, seen.worker) for seen in views} == {
            (State.READY, 0, 0, None)
        }
        done: set[str] = set()
        while len(done) < 10:
            runs = (await alive.claim()).runs
            assert all(await alive.succeed(*runs))
            done |= {run.id for run in runs}

    async def test_work_begun_at_most_once_is_unknown_and_not_repeated(self, world: World) -> None:
        ids = await world.submitted(*world.several(3))
        dead, alive = await world.worker(), await world.worker(world.other)
        claimed = {run.id: run for run in await dead.take()}
        begun = claimed[ids[1]]
        assert await dead.store.mark_started(begun.id, begun.fence, dead.id)
        await world.die(dead)
        rescued = await world.rescue(world.other)
        assert (rescued.unknown, rescued.returned) == ((begun.id,), 2)
        assert await world.states(ids) == [State.READY, State.OUTCOME_UNKNOWN, State.READY]
        assert begun.id not in {run.id for run in await alive.take()}
        assert await dead.succeed(begun) == [False]

    async def test_what_somebody_wanted_cancelled_is_cancelled(self, world: World) -> None:
        ids = await world.submitted(*world.several(2))
        dead = await world.worker()
        await dead.take()
        assert await world.other.cancel(ids[0], world.clock.now_us()) is State.RUNNING
        await world.die(dead)
        await world.rescue(world.other)
        assert await world.states(ids) == [State.CANCELLED, State.READY]

    async def test_an_end_by_rescue_starts_the_retention_of_the_key(self, world: World) -> None:
        run = world.new(key=a_key(retention_s=100))
        await world.submitted(run)
        dead = await world.worker()
        claimed = await dead.take_one()
        await dead.store.mark_started(claimed.id, claimed.fence, dead.id)
        await world.die(dead)
        await world.rescue()
        assert await world.submitted(world.new(key=a_key())) == [run.id]
        world.clock.advance(100)
        free = world.new(key=a_key())
        assert await world.submitted(free) == [free.id]

    async def test_rescuing_twice_is_rescuing_once(self, world: World) -> None:
        await world.submitted(*world.several(20))
        dead = await world.worker()
        await dead.take()
        await world.die(dead)
        sweeps = await together(
            *(world.rescue(store) for store in (world.store, world.other) for _ in range(3))
        )
        assert sorted(sweep.returned for sweep in sweeps) == [0] * 5 + [20]
        assert sum(len(sweep.workers) for sweep in sweeps) == 1

    async def test_completing_and_rescuing_at_once_gives_one_end(self, world: World) -> None:
        for turn in range(6):
            [run_id] = await world.submitted()
            dead = await world.worker()
            claimed = await dead.take_one()
            await world.die(dead)
            work = [dead.succeed(claimed), world.rescue(world.other)]
            results = await together(*(work if turn % 2 else reversed(work)))
            kept, rescued = results if turn % 2 else reversed(results)
            assert (kept == [True]) == (rescued.returned == 0)
            if kept == [True]:
                assert await world.state(run_id) is State.SUCCEEDED
            else:
                await world.other.cancel(run_id, world.clock.now_us())
        assert await world.count() == 6

    async def test_what_completed_before_the_sweep_stays_completed(self, world: World) -> None:
        await world.submitted()
        dead = await world.worker()
        claimed = await dead.take_one()
        await world.die(dead)
        assert await dead.succeed(claimed) == [True], "late, but nobody had taken it"
        assert (await world.rescue(world.other)).returned == 0
        assert await world.state(claimed.id) is State.SUCCEEDED

    async def test_the_living_are_left_alone(self, world: World) -> None:
        await world.submitted(*world.several(4))
        dead, alive = await world.worker(), await world.worker(world.other)
        await dead.claim(rows_max=2)
        held = (await alive.claim(rows_max=2)).runs
        await world.die(dead)
        await world.rescue(world.other)
        assert await alive.succeed(*held) == [True, True]

    # Cancelling what runs

    async def test_a_worker_hears_which_of_its_runs_to_cancel(self, world: World) -> None:
        await world.submitted(*world.several(4))
        first, second = await world.worker(), await world.worker(world.other)
        mine = (await first.claim(rows_max=2)).runs
        others = (await second.claim(rows_max=2)).runs
        assert list(await world.store.cancel_requests(first.id)) == []
        for run in (mine[0], others[0]):
            await world.other.cancel(run.id, world.clock.now_us())
        assert list(await world.store.cancel_requests(first.id)) == [mine[0].id]
        await first.settle(first.ended(mine[0], State.CANCELLED))
        assert list(await world.store.cancel_requests(first.id)) == []

    # Parking

    async def test_what_nobody_knows_is_parked_and_returns_with_who_knows_it(self, world: World) -> None:
        await world.submitted(
            *world.several(3, a_lane("part")), *world.several(2), world.new(a_lane(version="2"))
        )
        hand = await world.worker()
        assert await world.store.park(world.clock.now_us()) == 4
        assert await world.other.counts() == {State.PARKED: 4, State.READY: 2}
        assert await world.store.park(world.clock.now_us()) == 0
        assert len(await hand.take()) == 2
        knows = await world.worker(world.other, "part")
        assert len(await knows.take()) == 3
        assert (await world.other.counts())[State.PARKED] == 1

    async def test_nothing_is_parked_before_it_is_due(self, world: World) -> None:
        await world.submitted(world.new(a_lane("part"), delay_s=60))
        await world.worker()
        assert await world.store.park(world.clock.now_us()) == 0
        assert await world.other.counts() == {State.SCHEDULED: 1}

    async def test_dead_workers_know_nothing(self, world: World) -> None:
        await world.submitted(world.new(a_lane("part")))
        dead, _ = await world.worker(None, "part"), await world.worker()
        await world.die(dead)
        await world.rescue(world.other)
        assert await world.store.park(world.clock.now_us()) == 1

    async def test_a_worker_that_comes_back_in_time_finds_its_work(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        world.clock.advance(LEASE_S + 1)
        await world.other.park(world.clock.now_us())
        assert hand.beat()
        assert len(await hand.take()) == 1

    async def test_parking_many_takes_several_sweeps(self, world: World) -> None:
        count = bounds.PRUNE_ROWS_MAX + 50
        await world.submitted(*world.several(count, a_lane("part")))
        await world.worker()
        assert [await world.store.park(world.clock.now_us()) for _ in range(3)] == [count - 50, 50, 0]
        # So does returning them: the first step comes with who knows them, the others with the next sweeps.
        hand = await world.worker(None, "part")
        assert len(await hand.take()) == bounds.PRUNE_ROWS_MAX
        await world.store.park(world.clock.now_us())
        assert len(await hand.take()) == 50

    async def test_what_present_code_refused_returns_with_a_new_worker_only(self, world: World) -> None:
        await world.submitted(*world.several(3))
        hand = await world.worker()
        await hand.settle(
            *(hand.ended(run, State.PARKED, failure=a_failure(), charged=False) for run in await hand.take())
        )
        for _ in range(3):
            assert await world.store.park(world.clock.now_us()) == 0
            assert await hand.take() == []
        assert len(await (await world.worker(world.other)).take()) == 3

    async def test_a_suspect_is_one_until_an_attempt_has_ended(self, world: World) -> None:
        run_ids = await world.submitted(*world.several(2))
        dead = await world.worker()
        assert len(await dead.take()) == 2
        await world.die(dead)
        await world.rescue()
        hand = await world.worker()
        [suspect] = (await hand.claim()).runs
        assert suspect.id in run_ids
        assert await hand.settle(hand.handed_back(suspect)) == [True]
        assert (await world.view(suspect.id)).suspect is not None, "it has shown nothing yet"
        [again] = (await hand.claim()).runs
        assert await hand.settle(hand.retried(again)) == [True]
        assert (await world.view(again.id)).suspect is None
