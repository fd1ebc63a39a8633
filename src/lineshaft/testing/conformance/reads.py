"""Looking, without writing."""

from __future__ import annotations

import pytest

from lineshaft.core.states import FINAL, State
from lineshaft.store.values import Pace, RunFilter
from lineshaft.testing.conformance.harness import Conformance, World, a_key, a_lane

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.mark.asyncio
class Reads(Conformance):
    """The port `Reads`. What single fields mean is tested where they are written."""

    async def test_views_come_in_the_order_asked_for(self, world: World) -> None:
        done = await world.finished()
        waiting, ready = await world.submitted(world.new(delay_s=60), world.new())
        found = await world.other.view([ready, NOBODY, done, waiting])
        assert [seen and seen.state for seen in found] == [
            State.READY,
            None,
            State.SUCCEEDED,
            State.SCHEDULED,
        ]
        assert list(await world.other.view([])) == []

    async def test_finished_leaves_out_the_others(self, world: World) -> None:
        done, failed = await world.finished(), await world.finished(State.FAILED)
        ids = [*await world.submitted(*world.several(2)), done, NOBODY, failed]
        found = await world.other.finished(ids)
        assert {seen.id: (seen.state, seen.result) for seen in found} == {
            done: (State.SUCCEEDED, b'"done"'),
            failed: (State.FAILED, None),
        }

    async def test_a_run_is_seen_at_every_moment_of_its_life(self, world: World) -> None:
        [run_id] = await world.submitted()
        hand = await world.worker()
        seen = [await world.state(run_id)]
        claimed = await hand.take_one()
        seen.append(await world.state(run_id))
        await hand.settle(hand.retried(claimed, pause_s=1))
        seen.append(await world.state(run_id))
        world.clock.advance(1)
        await hand.succeed(await hand.take_one())
        seen.append(await world.state(run_id))
        assert seen == [State.READY, State.RUNNING, State.SCHEDULED, State.SUCCEEDED]

    # Listing

    async def test_a_listing_is_newest_first_and_light(self, world: World) -> None:
        ids = []
        for number in range(6):
            world.clock.advance(1)
            run = world.new(args=b'"heavy"')
            ids.append(await world.finished(run=run) if number % 2 else (await world.submitted(run))[0])
            if number % 2 == 0:
                await world.store.cancel(ids[-1], world.clock.now_us())
        world.clock.advance(1)
        ids += await world.submitted(world.new(args=b'"heavy"'))
        listed = await world.other.listing(RunFilter())
        assert [seen.id for seen in listed] == ids[::-1]
        assert {(seen.args, seen.result) for seen in listed} == {(b"", None)}

    async def test_a_listing_goes_on_where_a_page_ended(self, world: World) -> None:
        ids = [await world.finished() for _ in range(3)] + await world.submitted(*world.several(4))
        pages, before = [], None
        while page := await world.other.listing(RunFilter(before_id=before, rows_max=3)):
            pages.append([seen.id for seen in page])
            before = page[-1].id
        assert [len(page) for page in pages] == [3, 3, 1]
        assert [run_id for page in pages for run_id in page] == sorted(ids, reverse=True)

    async def test_a_listing_is_filtered_by_state(self, world: World) -> None:
        by_state = {state: await world.finished(state) for state in sorted(FINAL)}
        by_state[State.SCHEDULED], by_state[State.READY] = await world.submitted(
            world.new(delay_s=9), world.new()
        )
        for states in (
            *({state} for state in by_state),
            {State.FAILED, State.READY},
            set(FINAL),
            set(by_state),
        ):
            listed = await world.other.listing(RunFilter(states=frozenset(states)))
            assert {seen.id for seen in listed} == {by_state[state] for state in states}
        assert list(await world.other.listing(RunFilter(states=frozenset({State.PARKED})))) == []

    async def test_a_listing_is_filtered_by_names(self, world: World) -> None:
        lanes = [
            a_lane(task, queue=queue, tenant=tenant)
            for task in ("greet", "part")
            for queue in ("mail", "post")
            for tenant in ("acme", "zeta")
        ]
        await world.submitted(*(world.new(lane) for lane in lanes))
        for lane in lanes[::2]:
            await world.finished(State.FAILED, world.new(lane)) if lane.task == "greet" else None

        async def lanes_of(wanted: RunFilter) -> set[tuple[str, str, str]]:
            return {
                (seen.lane.task, seen.lane.queue, seen.lane.tenant)
                for seen in await world.other.listing(wanted)
            }

        everything = {(lane.task, lane.queue, lane.tenant) for lane in lanes}
        parts = frozenset({"part"})
        assert await lanes_of(RunFilter(tasks=parts)) == {each for each in everything if each[0] == "part"}
        assert await lanes_of(RunFilter(queues=frozenset({"mail", "gone"}))) == {
            each for each in everything if each[1] == "mail"
        }
        assert await lanes_of(RunFilter(tasks=parts, tenants=frozenset({"zeta"}))) == {
            each for each in everything if (each[0], each[2]) == ("part", "zeta")
        }

    # Numbers

    async def test_runs_are_counted_by_state(self, world: World) -> None:
        assert await world.other.counts() == {}
        await world.finished()
        await world.finished()
        await world.finished(State.FAILED)
        await world.submitted(*world.several(4), world.new(delay_s=60))
        counts = {State.SUCCEEDED: 2, State.FAILED: 1, State.READY: 4, State.SCHEDULED: 1}
        assert await world.other.counts() == counts
        facts = await world.other.facts()
        assert (facts.unfinished, facts.finished) == (5, 3)
        assert facts.bytes > 0
        assert facts.address
        assert facts.schema

    async def test_queues_show_what_waits_and_since_when(self, world: World) -> None:
        assert list(await world.other.queues()) == []
        oldest = world.new(a_lane(queue="mail"))
        world.clock.advance(5)
        mail = [world.new(a_lane(queue="mail", tenant="zeta")), world.new(a_lane("part", queue="mail"))]
        later = world.new(a_lane(queue="post"), delay_s=60)
        await world.submitted(oldest, *mail, later)
        found = {seen.queue: (seen.counts, seen.oldest_ready_us) for seen in await world.other.queues()}
        assert found == {
            "mail": ({State.READY: 3}, oldest.due_us),
            "post": ({State.SCHEDULED: 1}, None),
        }
        await world.store.cancel(later.id, world.clock.now_us())
        assert [seen.queue for seen in await world.other.queues()] == ["mail"]

    async def test_how_many_come_before(self, world: World) -> None:
        runs = [world.new(priority=-number) for number in range(5)]
        await world.submitted(*runs, world.new(a_lane(tenant="zeta"), priority=9))
        assert [await world.other.ahead(run.id, 3) for run in runs] == [0, 1, 2, 3, 3]

    async def test_who_retries_a_run(self, world: World) -> None:
        failed = await world.finished(State.FAILED, world.new(key=a_key()))
        assert await world.other.retried_by(failed) is None
        [again] = await world.submitted(world.new(key=a_key(retry_failed=True)))
        assert await world.other.retried_by(failed) == again
        await world.store.cancel(again, world.clock.now_us())
        assert await world.other.retried_by(failed) == again

    async def test_a_rate_that_was_never_used_is_open(self, world: World) -> None:
        assert await world.other.pace_open_us(Pace("nobody", 1, 1_000_000)) <= world.clock.now_us()

    async def test_a_store_that_was_never_used_has_nothing(self, world: World) -> None:
        store = world.other
        assert [
            list(found) for found in (await store.workers(), await store.slots(), await store.queues())
        ] == [
            [],
            [],
            [],
        ]
        assert list(await store.listing(RunFilter())) == []
        assert list(await store.attempts(NOBODY)) == []
        assert list(await store.cancel_requests(1)) == []
