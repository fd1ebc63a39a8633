"""Gates that a claim passes: concurrency slots that cannot leak, rates that are kept to the microsecond."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest

from lineshaft.core.states import State
from lineshaft.store.values import Claimed, Gate, LaneShare, OpenLane, Pace, Plan, SlotHolder, Slots
from lineshaft.testing.conformance.harness import ANYWHERE_US, Conformance, Hand, World, a_lane, together

TEN = Slots("task:greet", 10)


@pytest.mark.asyncio
class Limits(Conformance):
    """What `Claims.claim` does at gates, and `Claims.settle` after them."""

    # Concurrency

    async def test_no_more_are_held_than_there_are_slots(self, world: World) -> None:
        await world.submitted(*world.several(30))
        hand = await world.worker()
        assert len(await hand.take(TEN)) == 10
        assert await hand.take(TEN) == []

    async def test_slots_hold_over_processes_and_any_order_of_things(self, world: World) -> None:
        await world.submitted(*world.several(300), *world.several(100, a_lane(tenant="zeta")))
        hands = [await world.worker(store) for store in (world.store, world.other) for _ in range(2)]
        held: dict[Hand, list[Claimed]] = {hand: [] for hand in hands}
        done = 0
        while done < 400:
            replies = await together(*(hand.claim(TEN) for hand in hands))
            for hand, reply in zip(hands, replies, strict=True):
                held[hand] += reply.runs
            in_flight = (await world.other.counts()).get(State.RUNNING, 0)
            assert 0 < in_flight <= 10
            assert sum(slot.held for slot in await world.other.slots()) == in_flight
            for hand in hands:
                count = 1 + int(world.chance.fraction() * len(held[hand]))
                ended, held[hand] = held[hand][:count], held[hand][count:]
                assert all(await hand.succeed(*ended, slots=[TEN]))
                done += len(ended)

    async def test_slots_are_named_with_who_holds_them(self, world: World) -> None:
        await world.submitted(*world.several(3))
        first, second = await world.worker(), await world.worker(world.other)
        await first.claim(TEN, rows_max=2)
        await second.claim(TEN, rows_max=2)
        expected = [SlotHolder(TEN.key, first.id, 2), SlotHolder(TEN.key, second.id, 1)]
        assert list(await world.other.slots()) == expected

    async def test_keys_are_apart(self, world: World) -> None:
        tenants = ("acme", "zeta")
        await world.submitted(*(run for tenant in tenants for run in world.several(5, a_lane(tenant=tenant))))
        hand = await world.worker()
        runs = await hand.take(plan=each_lane(lambda each: (Slots(f"tenant:{each.lane.tenant}", 2),)))
        assert sorted(run.lane.tenant for run in runs) == ["acme", "acme", "zeta", "zeta"]

    async def test_the_narrowest_of_several_gates_counts(self, world: World) -> None:
        await world.submitted(*world.several(20))
        hand = await world.worker()
        assert len(await hand.take(TEN, Slots("queue:default", 3), Slots("tenant:acme", 7))) == 3

    async def test_a_gate_over_several_lanes_is_used_to_the_full(self, world: World) -> None:
        # What one lane does not need of the slots is for the others.
        few = [world.new(a_lane(tenant=f"few-{number}")) for number in range(4)]
        await world.submitted(*few, *world.several(20, a_lane(tenant="many")))
        hand = await world.worker()
        assert len(await hand.take(TEN)) == 10

    async def test_lanes_behind_one_gate_share_it(self, world: World) -> None:
        tenants = [f"tenant-{number}" for number in range(5)]
        await world.submitted(
            *(run for tenant in tenants for run in world.several(20, a_lane(tenant=tenant)))
        )
        reply = await (await world.worker()).claim(TEN)
        assert Counter(run.lane.tenant for run in reply.runs) == dict.fromkeys(tenants, 2)

    @pytest.mark.parametrize("state", [State.SUCCEEDED, State.SCHEDULED, State.READY, State.PARKED])
    async def test_slots_come_back_with_any_outcome(self, world: World, state: State) -> None:
        await world.submitted(*world.several(20))
        hand = await world.worker()
        runs = await hand.take(TEN)
        await hand.settle(*(hand.ended(run, state, charged=False, slots=[TEN]) for run in runs[:4]))
        assert len(await hand.take(TEN)) == 4

    async def test_slots_come_back_with_the_lease_of_the_dead(self, world: World) -> None:
        await world.submitted(*world.several(20))
        dead, alive = await world.worker(), await world.worker(world.other)
        await dead.take(TEN)
        await world.die(dead)
        await world.rescue(world.other)
        assert list(await world.other.slots()) == []
        assert await taken(alive, TEN) == 10

    async def test_slots_come_back_when_a_worker_leaves(self, world: World) -> None:
        await world.submitted(*world.several(20))
        leaving, staying = await world.worker(), await world.worker(world.other)
        await leaving.take(TEN)
        await world.store.unregister(leaving.id)
        assert len(await staying.take(TEN)) == 10

    async def test_an_outcome_whose_fence_was_lost_frees_no_slot(self, world: World) -> None:
        """Whatever takes the fence from a holder has seen to its slot, and nobody may free one twice.

        The sweep over the dead and a worker's leaving delete its slots; an outcome that was written before, here or
        in a transaction, has returned the slot, which another run of the same worker may hold by now.
        """
        await world.submitted(*world.several(20))
        dead, alive = await world.worker(), await world.worker(world.other)
        lost = await dead.take(TEN)
        await world.die(dead)
        await world.rescue(world.other)
        held = [run for _ in range(3) for run in (await alive.claim(TEN)).runs]
        assert len(held) == 10
        # The slots of the dead were freed with it: its late outcomes must not free those of others.
        assert await dead.succeed(*lost, slots=[TEN]) == [False] * 10
        assert await (await world.worker()).take(TEN) == []
        # Nor does an outcome that is told a second time, or comes from an earlier claim.
        assert await alive.succeed(held[0], slots=[TEN]) == [True]
        assert await alive.succeed(held[0], slots=[TEN]) == [False]
        stale = alive.ended(held[1], slots=[TEN])._replace(fence=0)
        assert await alive.settle(stale) == [False]
        assert sum(slot.held for slot in await world.other.slots()) == 9
        assert len((await alive.claim(TEN)).runs) == 1

    async def test_a_limit_that_was_lowered_closes_until_there_is_room(self, world: World) -> None:
        await world.submitted(*world.several(20))
        hand = await world.worker()
        runs = await hand.take(TEN)
        fewer = Slots(TEN.key, 4)
        await hand.succeed(*runs[:6], slots=[TEN])
        assert await hand.take(fewer) == []
        await hand.succeed(runs[6], slots=[TEN])
        assert len(await hand.take(fewer)) == 1

    async def test_a_closed_gate_holds_up_nobody_else(self, world: World) -> None:
        await world.submitted(*world.several(12), *world.several(12, a_lane("part")))
        hand = await world.worker(None, "greet", "part")
        plan = each_lane(lambda each: (TEN,) if each.lane.task == "greet" else ())
        runs = await hand.take(plan=plan)
        assert sum(run.lane.task == "part" for run in runs) == 12
        assert len(runs) == 22

    # Rates

    @pytest.mark.parametrize(("count", "period_us"), [(5, 10_000_000), (7, 1_000_000), (1, 86_400_000_000)])
    async def test_a_rate_is_kept_exactly(self, world: World, count: int, period_us: int) -> None:
        """Against the algorithm in exact fractions, at times that are drawn, and at the edges of intervals."""
        pace = Pace("task:greet/rate", count, period_us)
        await world.submitted(*world.several(300))
        hands = [await world.worker(), await world.worker(world.other)]
        interval = Fraction(period_us, count)
        arrival = Fraction(0)
        for turn in range(60):
            now = world.clock.now_us()
            arrival = max(arrival, Fraction(now))
            allowed = max(0, (now + period_us - arrival) // interval)
            reply = await hands[turn % 2].claim(pace, rows_max=4)
            assert len(reply.runs) == min(allowed, 4), f"turn {turn}"
            arrival += interval * len(reply.runs)
            # To the microsecond at which the next start is allowed, to the one before, or anywhere.
            open_us = math.ceil(arrival + interval - period_us)
            wait_us = (open_us - now, open_us - now - 2, int(world.chance.fraction() * interval * 2))[
                turn % 3
            ]
            world.clock.advance(max(0, wait_us) / 1_000_000)

    async def test_a_burst_is_followed_by_an_even_flow(self, world: World) -> None:
        pace = Pace("task:greet/rate", 5, 10_000_000)
        await world.submitted(*world.several(50))
        hand = await world.worker()
        assert len(await hand.take(pace)) == 5
        for _ in range(8):
            world.clock.advance(1.999_9)
            assert await hand.take(pace) == []
            world.clock.advance(0.000_1)
            assert len(await hand.take(pace)) == 1
        world.clock.advance(1_000)
        assert len(await hand.take(pace)) == 5

    async def test_a_claim_says_when_the_rate_opens(self, world: World) -> None:
        pace = Pace("task:greet/rate", 3, 1_000_000)
        await world.submitted(*world.several(50))
        hand = await world.worker()
        assert await world.other.pace_open_us(pace) <= world.clock.now_us()
        for _ in range(6):
            await hand.take(pace)
            reply = await hand.claim(pace)
            assert list(reply.runs) == []
            assert reply.next_due_us == await world.other.pace_open_us(pace)
            assert reply.next_due_us is not None
            world.clock.advance((reply.next_due_us - world.clock.now_us()) / 1_000_000)
            assert len((await hand.claim(pace)).runs) == 1

    async def test_rates_outlast_their_worker(self, world: World) -> None:
        pace = Pace("task:greet/rate", 2, 3_600_000_000)
        await world.submitted(*world.several(5))
        first = await world.worker()
        await first.take(pace)
        await world.store.unregister(first.id)
        assert await (await world.worker(world.other)).take(pace) == []

    async def test_a_clock_that_was_set_back_shuts_a_rate_for_one_period_at_most(self, world: World) -> None:
        pace = Pace("task:greet/rate", 2, 10_000_000)
        await world.submitted(*world.several(9))
        hand = await world.worker()
        assert len(await hand.take(pace)) == 2
        world.clock.set_wall(world.clock.now_us() - 3_600_000_000)
        reply = await hand.claim(pace)
        assert list(reply.runs) == []
        assert reply.next_due_us == world.clock.now_us() + 5_000_000
        for _ in range(3):
            world.clock.advance(5)
            assert len(await hand.take(pace)) == 1

    async def test_pruning_does_not_open_a_rate(self, world: World) -> None:
        pace = Pace("task:greet/rate", 2, 10_000_000)
        await world.submitted(*world.several(9))
        hand = await world.worker()
        await hand.take(pace)
        world.clock.advance(1)
        await world.store.prune(0, world.clock.now_us())
        assert await hand.take(pace) == []


async def taken(hand: Hand, *gates: Gate) -> int:
    """How many runs a worker gets that goes on claiming, suspects group by group among them."""
    return sum([len((await hand.claim(*gates)).runs) for _ in range(5)])


def each_lane(gates_of: Callable[[OpenLane], tuple[Gate, ...]]) -> Plan:
    """A plan that takes from every lane, behind gates of its own."""

    def plan(lanes: Sequence[OpenLane]) -> Sequence[LaneShare]:
        return [LaneShare(each.lane, 100, ANYWHERE_US, gates_of(each)) for each in lanes]

    return plan
