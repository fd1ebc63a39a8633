"""Suspects: runs that kill their workers are found, and their neighbours are not blamed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from lineshaft.core import bounds
from lineshaft.core.states import FailureClass, State
from lineshaft.store.values import Claimed, Slots
from lineshaft.testing.conformance.harness import Conformance, Hand, World, a_key, a_lane


@pytest.mark.asyncio
class Killers(Conformance):
    """`Leases.rescue`, where a worker's death was somebody's doing."""

    @pytest.mark.parametrize("neighbours", [0, 1, 100])
    async def test_a_killer_is_found_among_its_neighbours(self, world: World, neighbours: int) -> None:
        runs = world.several(neighbours + 1)
        killer = runs[neighbours // 3].id
        await world.submitted(*runs)
        deaths, deaths_alone = await worked_off(world, {killer}, neighbours + 1)
        # In halving groups: as often beside others as the number can be halved, then alone.
        assert deaths_alone == bounds.CRASHES_MAX + 1
        assert deaths - deaths_alone <= math.ceil(math.log2(neighbours + 1))
        seen = await world.view(killer)
        assert (seen.state, seen.attempts, seen.crashes) == (State.FAILED, 0, bounds.CRASHES_MAX + 1)
        assert seen.failure is not None
        assert seen.failure.kind is FailureClass.CRASH
        others = [run for run in await world.other.view([run.id for run in runs]) if run and run.id != killer]
        assert {(run.state, run.attempts, run.crashes) for run in others} <= {(State.SUCCEEDED, 1, 0)}
        assert len(others) == neighbours

    async def test_several_killers_are_found(self, world: World) -> None:
        runs = world.several(40)
        killers = {runs[number].id for number in (0, 1, 17, 39)}
        await world.submitted(*runs)
        await worked_off(world, killers, 40)
        for run in runs:
            seen = await world.view(run.id)
            expected = (State.FAILED, bounds.CRASHES_MAX + 1) if run.id in killers else (State.SUCCEEDED, 0)
            assert (seen.state, seen.crashes) == expected

    async def test_a_killer_waits_longer_each_time(self, world: World) -> None:
        [killer] = await world.submitted()
        pauses = []
        for _ in range(bounds.CRASHES_MAX):
            await kill(world)
            pauses.append((await world.view(killer)).due_us - world.clock.now_us())
            world.clock.advance(max(0, pauses[-1]) / 1_000_000)
        assert pauses == sorted(pauses)
        assert pauses[-1] >= 1_000_000, "it must not kill workers as fast as they start"

    async def test_a_lease_that_ran_out_is_no_crash(self, world: World) -> None:
        """A process that was stopped, or whose loop was blocked, may live: its run is suspect, and not charged."""
        [run_id] = await world.submitted()
        for _ in range(bounds.CRASHES_MAX + 2):
            stalled = await world.worker()
            await stalled.take_one()
            await world.die(stalled)
            rescued = await world.rescue(world.other)
            assert (rescued.returned, rescued.suspects, rescued.failed) == (1, 1, ())
        seen = await world.view(run_id)
        assert (seen.state, seen.crashes, seen.failure) == (State.READY, 0, None)
        assert seen.suspect is not None

    async def test_crashes_are_no_attempts(self, world: World) -> None:
        [run_id] = await world.submitted()
        await kill(world)
        hand = await world.worker()
        claimed = await hand.take_one()
        assert (claimed.id, claimed.attempts, claimed.crashes) == (run_id, 0, 1)
        assert await hand.succeed(claimed) == [True]
        seen = await world.view(run_id)
        assert (seen.state, seen.attempts, seen.crashes) == (State.SUCCEEDED, 1, 1)

    async def test_suspects_run_with_nothing_beside_them(self, world: World) -> None:
        suspects = await world.submitted(*world.several(4))
        await kill(world)
        innocent = await world.submitted(*world.several(3))
        hand = await world.worker()
        busy = await hand.claim(idle=False)
        assert (list(busy.runs), busy.suspects_wait) == ([], True)
        groups = []
        for _ in range(2):
            reply = await hand.claim()
            assert reply.suspects_wait
            groups.append({run.id for run in reply.runs})
            await hand.succeed(*reply.runs)
        assert [len(group) for group in groups] == [2, 2]
        assert groups[0] | groups[1] == set(suspects)
        reply = await hand.claim()
        assert {run.id for run in reply.runs} == set(innocent)
        assert not reply.suspects_wait

    async def test_groups_that_others_must_run_hold_up_nobody(self, world: World) -> None:
        for task in ("part", "greet"):
            await world.submitted(*world.several(2, a_lane(task)))
            await kill(world, task)
        hand = await world.worker()
        runs: list[Claimed] = []
        for _ in range(4):
            reply = await hand.claim()
            runs += reply.runs
            await hand.succeed(*reply.runs)
        assert [run.lane.task for run in runs] == ["greet", "greet"]

    async def test_suspects_at_a_closed_gate_hold_up_nobody(self, world: World) -> None:
        gate = Slots("task:part", 1)
        await world.submitted(*world.several(2, a_lane("part")))
        await kill(world, "part")
        holder = await world.worker(None, "part")
        [held] = (await holder.claim(gate)).runs
        await world.submitted()
        hand = await world.worker(world.other, "part", "greet")
        for idle in (True, False):
            reply = await hand.claim(gate, idle=idle)
            assert not reply.suspects_wait
        await holder.succeed(held, slots=[gate])
        assert [run.lane.task for run in (await hand.claim(gate)).runs] == ["part"]

    async def test_a_killer_lets_its_key_go_like_any_failure(self, world: World) -> None:
        [killer] = await world.submitted(world.new(key=a_key()))
        await worked_off(world, {killer}, 1)
        again = world.new(key=a_key(retry_failed=True))
        assert await world.submitted(again) == [again.id]


async def worked_off(world: World, killers: set[str], count: int) -> tuple[int, int]:
    """Work until `count` runs have ended: a worker that takes a killer dies. Deaths in all, and alone."""
    deaths, alone = 0, 0
    hand = await world.worker()
    for _ in range(60 * len(killers) + count):
        runs = (await hand.claim()).runs
        if not runs:
            world.clock.advance(1)
            assert hand.beat()
        elif killers.isdisjoint(run.id for run in runs):
            assert all(await hand.succeed(*runs))
        else:
            deaths, alone = deaths + 1, alone + (len(runs) == 1)
            hand = await replaced(world, hand, runs)
        counts = await world.other.counts()
        if counts.get(State.SUCCEEDED, 0) + counts.get(State.FAILED, 0) == count:
            return deaths, alone
    raise AssertionError(f"after {deaths} deaths there are still runs left: {await world.other.counts()}")


async def kill(world: World, task: str = "greet") -> None:
    """A worker takes all there is of a task, and dies of it."""
    hand = await world.worker(None, task)
    await replaced(world, hand, (await hand.claim()).runs, survive=False)


async def replaced(world: World, dead: Hand, runs: Sequence[Claimed], *, survive: bool = True) -> Hand:
    """Let a worker die, sweep over it, and start another in its place."""
    assert runs, "it died of something"
    world.crash(dead)
    assert (await world.rescue(world.other)).workers == (dead.id,)
    return await world.worker(None, *dead.tasks) if survive else dead
