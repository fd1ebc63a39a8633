"""Accepting runs, and keys that make it idempotent."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from lineshaft.core import bounds
from lineshaft.core.errors import KeyReused, TransactionRefused
from lineshaft.core.states import State
from lineshaft.testing.conformance.harness import Capability, Conformance, World, a_key, a_lane, together

YEAR_S = 365 * 86_400


@pytest.mark.asyncio
class Submissions(Conformance):
    """The port `Submissions`."""

    # Acceptance

    async def test_an_accepted_run_is_there_for_everybody(self, world: World) -> None:
        run = world.new(a_lane("greet", queue="mail", version="2", tenant="åäö"), priority=7)
        [accepted] = await world.store.submit([run])
        assert accepted == (run.id, True)
        seen = await world.view(run.id)
        assert (seen.state, seen.lane, seen.priority) == (State.READY, run.lane, 7)
        assert (seen.attempts, seen.crashes, seen.fence, seen.worker) == (0, 0, 0, None)
        assert (seen.due_us, seen.first_id, seen.retry_of, seen.key) == (run.due_us, run.id, None, None)
        assert seen.submitted_us == run.submitted_us // 1_000 * 1_000

    async def test_a_run_due_later_is_scheduled(self, world: World) -> None:
        run = world.new(delay_s=0.001)
        await world.submitted(run)
        assert await world.state(run.id) is State.SCHEDULED

    async def test_many_are_accepted_in_the_order_given(self, world: World) -> None:
        runs = world.several(bounds.FLUSH_ROWS_MAX + 3)
        accepted = await world.store.submit(runs)
        assert [each.id for each in accepted] == [run.id for run in runs]
        assert all(each.created for each in accepted)
        assert (await world.other.counts())[State.READY] == len(runs)

    async def test_none_is_accepted_as_none(self, world: World) -> None:
        assert list(await world.store.submit([])) == []

    async def test_a_retry_is_linked_to_its_lineage(self, world: World) -> None:
        first = world.new()
        second = world.new(first_id=first.id, retry_of=first.id)
        await world.submitted(first, second)
        seen = await world.view(second.id)
        assert (seen.first_id, seen.retry_of) == (first.id, first.id)

    @pytest.mark.parametrize("size", [0, bounds.INLINE_BYTES_MAX - 2, bounds.INLINE_BYTES_MAX, 300_000])
    async def test_arguments_come_back_as_they_were(self, world: World, size: int) -> None:
        text = 'snö \U0001f9be \\u0000 "quoted" \\\\ '
        args = b'"' + text.replace('"', '\\"').encode() + b"x" * size + b'"'
        [run_id] = await world.submitted(world.new(args=args))
        assert (await world.view(run_id)).args == args
        assert (await (await world.worker()).take_one()).args == args

    # Keys

    async def test_the_same_key_gives_the_same_run(self, world: World) -> None:
        first, second = world.new(key=a_key()), world.new(key=a_key())
        await world.submitted(first)
        assert list(await world.other.submit([second])) == [(first.id, False)]
        assert await world.count() == 1
        assert (await world.view(first.id)).key == "order-1"

    async def test_a_key_belongs_to_a_task_and_a_tenant(self, world: World) -> None:
        [greet] = await world.submitted(world.new(a_lane("greet"), key=a_key()))
        same = world.new(a_lane("greet", version="2", queue="mail"), key=a_key())
        other_task = world.new(a_lane("part"), key=a_key(digest="d2"))
        other_tenant = world.new(a_lane("greet", tenant="zeta"), key=a_key(digest="d2"))
        ids = await world.submitted(same, other_task, other_tenant)
        assert ids == [greet, other_task.id, other_tenant.id]

    async def test_other_arguments_are_refused_and_nothing_of_the_call_is_inserted(
        self, world: World
    ) -> None:
        await world.submitted(world.new(key=a_key()))
        call = [world.new(), world.new(key=a_key("order-2")), world.new(key=a_key(digest="d2")), world.new()]
        with pytest.raises(KeyReused, match="order-1"):
            await world.store.submit(call)
        assert await world.count() == 1
        # Nor is a key taken by a call that failed.
        assert await world.submitted(call[1]) == [call[1].id]

    async def test_a_refused_call_does_not_hurt_others_of_the_same_moment(self, world: World) -> None:
        await world.submitted(world.new(key=a_key()))
        good = [world.new(key=a_key(f"good-{number}")) for number in range(9)]
        bad = world.new(key=a_key(digest="d2"))
        calls = [[run] for run in (*good[:5], bad, *good[5:])]
        results = await together(*(world.store.submit(call) for call in calls))
        assert isinstance(results.pop(5), KeyReused)
        assert [result[0].id for result in results] == [run.id for run in good]

    async def test_one_call_may_hold_a_key_twice(self, world: World) -> None:
        first, second = world.new(key=a_key()), world.new(key=a_key())
        assert list(await world.store.submit([first, second])) == [(first.id, True), (first.id, False)]
        assert await world.count() == 1

    async def test_one_call_may_not_hold_a_key_for_two_things(self, world: World) -> None:
        with pytest.raises(KeyReused):
            await world.store.submit([world.new(key=a_key()), world.new(key=a_key(digest="d2"))])
        assert await world.count() == 0

    async def test_two_processes_race_for_keys_and_one_wins_each(self, world: World) -> None:
        calls = [
            store.submit([world.new(key=a_key(f"k{number}")) for number in range(50)])
            for _ in range(5)
            for store in (world.store, world.other)
        ]
        results = await together(*calls)
        for answers in zip(*results, strict=True):
            assert sum(answer.created for answer in answers) == 1
            assert len({answer.id for answer in answers}) == 1
        assert await world.count() == 50

    # How long a key is kept

    async def test_a_key_is_kept_while_its_run_has_not_finished(self, world: World) -> None:
        [held] = await world.submitted(world.new(key=a_key(retention_s=0)))
        world.clock.advance(10 * YEAR_S)
        await world.store.prune(world.clock.now_us(), world.clock.now_us())
        assert await world.submitted(world.new(key=a_key())) == [held]

    async def test_retention_counts_from_the_finish(self, world: World) -> None:
        run = world.new(key=a_key(retention_s=100))
        await world.submitted(run)
        world.clock.advance(500)
        hand = await world.worker()
        await hand.succeed(await hand.take_one())
        world.clock.advance(99.999)
        assert await world.submitted(world.new(key=a_key())) == [run.id]
        with pytest.raises(KeyReused):
            await world.submitted(world.new(key=a_key(digest="d2")))
        world.clock.advance(0.001)
        free = world.new(key=a_key(digest="d2"))
        assert await world.submitted(free) == [free.id]

    async def test_a_cancelled_run_lets_its_key_go_in_time(self, world: World) -> None:
        run = world.new(key=a_key(retention_s=100))
        await world.submitted(run)
        await world.store.cancel(run.id, world.clock.now_us())
        assert await world.submitted(world.new(key=a_key())) == [run.id]
        world.clock.advance(101)
        free = world.new(key=a_key())
        assert await world.submitted(free) == [free.id]

    # Failed holders

    async def test_a_failed_holder_is_returned(self, world: World) -> None:
        failed = await world.finished(State.FAILED, world.new(key=a_key()))
        assert await world.submitted(world.new(key=a_key())) == [failed]

    async def test_a_failed_holder_is_replaced_when_asked_and_the_key_follows(self, world: World) -> None:
        first = await world.finished(State.FAILED, world.new(key=a_key()))
        second = world.new(key=a_key(retry_failed=True))
        assert await world.submitted(second) == [second.id]
        seen = await world.view(second.id)
        assert (seen.first_id, seen.retry_of) == (first, first)
        assert await world.submitted(world.new(key=a_key())) == [second.id]
        assert await world.submitted(world.new(key=a_key(retry_failed=True))) == [second.id]
        assert await world.state(first) is State.FAILED

    async def test_a_lineage_keeps_its_first_run(self, world: World) -> None:
        first = await world.finished(State.FAILED, world.new(key=a_key()))
        second = await world.finished(State.FAILED, world.new(key=a_key(retry_failed=True)))
        third = world.new(key=a_key(retry_failed=True))
        await world.submitted(third)
        seen = await world.view(third.id)
        assert (seen.first_id, seen.retry_of) == (first, second)

    async def test_one_of_two_replacements_in_a_call_is_made(self, world: World) -> None:
        await world.finished(State.FAILED, world.new(key=a_key()))
        calls = [world.new(key=a_key(retry_failed=True)) for _ in range(2)]
        assert await world.submitted(*calls) == [calls[0].id] * 2

    async def test_in_one_call_each_submission_finds_what_those_before_it_left(self, world: World) -> None:
        failed = await world.finished(State.FAILED, world.new(key=a_key()))
        replacing = world.new(key=a_key(retry_failed=True))
        found = await world.submitted(world.new(key=a_key()), replacing, world.new(key=a_key()))
        assert found == [failed, replacing.id, replacing.id]

    async def test_replacing_with_other_arguments_is_refused(self, world: World) -> None:
        # The lineage's idempotency key stands for its arguments toward everybody else.
        await world.finished(State.FAILED, world.new(key=a_key()))
        with pytest.raises(KeyReused):
            await world.submitted(world.new(key=a_key(digest="d2", retry_failed=True)))

    @pytest.mark.parametrize("state", [State.SUCCEEDED, State.CANCELLED, State.OUTCOME_UNKNOWN])
    async def test_only_a_failed_holder_is_replaced(self, world: World, state: State) -> None:
        holder = await world.finished(state, world.new(key=a_key()))
        assert await world.submitted(world.new(key=a_key(retry_failed=True))) == [holder]

    # Joining a transaction of the caller's own

    async def test_a_run_joins_a_raw_connection(self, world: World) -> None:
        self.require(Capability.OWN_CONNECTIONS)
        connection = world.store.connect()
        run = world.new(key=a_key())
        self.begin(connection)
        assert list(world.store.submit_with([run], connection)) == [(run.id, True)]
        assert list(world.store.submit_with([world.new(key=a_key())], connection)) == [(run.id, False)]
        assert await world.other.view([run.id]) == [None]
        connection.commit()
        assert await world.state(run.id) is State.READY
        connection.close()

    async def test_what_a_caller_rolls_back_was_never_submitted(self, world: World) -> None:
        self.require(Capability.OWN_CONNECTIONS)
        connection = world.store.connect()
        run = world.new(key=a_key(), args=b'"' + b"x" * 10_000 + b'"')
        self.begin(connection)
        world.store.submit_with([run], connection)
        connection.rollback()
        connection.close()
        assert await world.count() == 0
        # Neither its key nor its large arguments stay behind.
        assert await world.submitted(run) == [run.id]

    async def test_a_connection_without_a_transaction_is_refused(self, world: World) -> None:
        self.require(Capability.OWN_CONNECTIONS)
        connection = world.store.connect()
        with pytest.raises(TransactionRefused, match="no open transaction"):
            world.store.submit_with([world.new()], connection)
        connection.close()
        assert await world.count() == 0

    async def test_a_run_joins_a_session(self, world: World) -> None:
        self.require(Capability.OWN_CONNECTIONS)
        engine = world.store.engine()
        run, forgotten = world.new(), world.new()
        with Session(engine) as session:
            world.store.submit_with([run], session)
            assert await world.other.view([run.id]) == [None]
            session.commit()
            world.store.submit_with([forgotten], session)
        engine.dispose()
        assert await world.other.view([forgotten.id]) == [None]
        assert await world.state(run.id) is State.READY

    async def test_what_cannot_carry_a_submission_is_refused(self, world: World) -> None:
        with pytest.raises(TransactionRefused):
            world.store.submit_with([world.new()], object())
