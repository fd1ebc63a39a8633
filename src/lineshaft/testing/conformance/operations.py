"""What operators and housekeeping do."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineshaft.core import bounds
from lineshaft.core.errors import InvalidTransition, RunNotFound, StoreError
from lineshaft.core.states import FINAL, State
from lineshaft.store.values import NewRun
from lineshaft.testing.conformance.harness import Capability, Conformance, World, a_key, a_lane, together

NOBODY = "00000000-0000-7000-8000-000000000000"
LARGE = b'"' + b"x" * 10_000 + b'"'


@pytest.mark.asyncio
class Operations(Conformance):
    """The port `Operations`."""

    # Cancelling

    async def test_what_does_not_run_is_cancelled_at_once(self, world: World) -> None:
        scheduled, ready, parked = world.new(delay_s=60), world.new(), world.new(a_lane("part"))
        await world.submitted(scheduled, ready, parked)
        hand = await world.worker()
        await world.store.park(world.clock.now_us())
        for run in (scheduled, ready, parked):
            assert await world.other.cancel(run.id, world.clock.now_us()) is State.CANCELLED
            seen = await world.view(run.id)
            assert (seen.state, seen.attempts, seen.args) == (State.CANCELLED, 0, run.args)
            assert seen.finished_us == world.clock.now_us()
        world.clock.advance(60)
        assert await hand.take() == []
        assert await (await world.worker(None, "part")).take() == []

    async def test_what_runs_is_asked_to_end(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        assert await world.other.cancel(claimed.id, world.clock.now_us()) is State.RUNNING
        assert (await world.view(claimed.id)).cancel_requested
        # Until its worker says so it may still end otherwise.
        assert await hand.succeed(claimed) == [True]
        assert await world.state(claimed.id) is State.SUCCEEDED

    @pytest.mark.parametrize("state", sorted(FINAL))
    async def test_what_has_finished_stays_as_it_is(self, world: World, state: State) -> None:
        run_id = await world.finished(state)
        before = await world.view(run_id)
        world.clock.advance(5)
        assert await world.other.cancel(run_id, world.clock.now_us()) is state
        assert await world.view(run_id) == before

    async def test_what_waits_for_its_retry_is_cancelled(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        await hand.settle(hand.retried(claimed))
        assert await world.other.cancel(claimed.id, world.clock.now_us()) is State.CANCELLED
        assert (await world.view(claimed.id)).attempts == 1

    async def test_cancelling_what_does_not_exist_is_refused(self, world: World) -> None:
        with pytest.raises(RunNotFound, match=NOBODY):
            await world.store.cancel(NOBODY, world.clock.now_us())

    async def test_cancelling_and_claiming_at_once_agree(self, world: World) -> None:
        for _ in range(5):
            [run_id] = await world.submitted()
            hand = await world.worker()
            reply, state = await together(hand.claim(), world.other.cancel(run_id, world.clock.now_us()))
            assert state is (State.RUNNING if reply.runs else State.CANCELLED)
            if reply.runs:
                await hand.settle(hand.ended(reply.runs[0], State.CANCELLED))
            assert await world.state(run_id) is State.CANCELLED

    async def test_one_of_complete_cancel_and_rescue_wins(self, world: World) -> None:
        for _ in range(5):
            [run_id] = await world.submitted()
            dead = await world.worker()
            claimed = await dead.take_one()
            await world.other.cancel(run_id, world.clock.now_us())
            await world.die(dead)
            [completed], timed_out, rescued, _ = await together(
                dead.succeed(claimed),
                world.other.settle([dead.ended(claimed, State.FAILED)]),
                world.rescue(world.other),
                world.store.cancel(run_id, world.clock.now_us()),
            )
            ends = {State.SUCCEEDED: completed, State.FAILED: timed_out[0]}
            ends[State.CANCELLED] = not (completed or timed_out[0])
            assert sum(ends.values()) == 1
            assert ends[await world.state(run_id)]
            assert rescued.returned == 0
        assert await world.count() == 5

    # Retrying

    @pytest.mark.parametrize("state", sorted(FINAL - {State.SUCCEEDED}))
    async def test_a_retry_is_a_new_run_of_the_lineage(self, world: World, state: State) -> None:
        old = await world.finished(state, world.new(key=a_key()))
        new = again(world, old)
        await world.other.retry(new)
        seen = await world.view(new.id)
        assert (seen.state, seen.first_id, seen.retry_of, seen.key) == (State.READY, old, old, "order-1")
        assert await world.state(old) is state
        assert await world.submitted(world.new(key=a_key())) == [new.id]

    async def test_a_retry_without_a_key(self, world: World) -> None:
        old = await world.finished(State.FAILED)
        new = again(world, old)._replace(key=None)
        await world.store.retry(new)
        assert (await world.view(new.id)).retry_of == old

    async def test_a_run_is_retried_once(self, world: World) -> None:
        old = await world.finished(State.FAILED)
        tries = [again(world, old)._replace(key=None) for _ in range(4)]
        results = await together(
            *(store.retry(run) for store, run in zip((world.store, world.other) * 2, tries, strict=True))
        )
        assert [type(result) for result in results if result is not None] == [InvalidTransition] * 3
        assert await world.count() == 2

    async def test_what_has_not_failed_is_not_retried(self, world: World) -> None:
        succeeded = await world.finished()
        [ready] = await world.submitted()
        for old, error in ((succeeded, InvalidTransition), (ready, InvalidTransition), (NOBODY, RunNotFound)):
            with pytest.raises(error):
                await world.store.retry(again(world, old)._replace(key=None))
        assert await world.count() == 2

    async def test_a_key_that_moved_on_is_not_taken_back(self, world: World) -> None:
        old = await world.finished(State.FAILED, world.new(key=a_key(retention_s=10)))
        world.clock.advance(11)
        await world.submitted(world.new(key=a_key()))
        with pytest.raises(InvalidTransition, match="order-1"):
            await world.store.retry(again(world, old))
        assert await world.count() == 2

    # Pruning

    async def test_only_what_is_beyond_its_retention_goes(self, world: World) -> None:
        old = await world.finished(run=world.new(args=LARGE))
        waiting = world.new(args=LARGE)
        await world.submitted(waiting)
        world.clock.advance(100)
        line_us = world.clock.now_us()
        finished_late = await world.finished(State.FAILED)
        parked = world.new(a_lane("part"))
        await world.submitted(parked)
        world.clock.advance(100)
        pruned = await world.store.prune(line_us, world.clock.now_us())
        assert (pruned.runs, pruned.keys) == (1, 0)
        assert await world.other.view([old]) == [None]
        assert list(await world.other.attempts(old)) == []
        assert (await world.view(waiting.id)).args == LARGE
        assert await world.states([waiting.id, finished_late, parked.id]) == [
            State.READY,
            State.FAILED,
            State.READY,
        ]

    async def test_age_counts_from_the_finish(self, world: World) -> None:
        [run_id] = await world.submitted()
        world.clock.advance(1_000)
        line_us = world.clock.now_us()
        hand = await world.worker()
        await hand.succeed(await hand.take_one())
        assert (await world.store.prune(line_us, line_us)).runs == 0
        assert await world.state(run_id) is State.SUCCEEDED

    async def test_one_step_deletes_a_bounded_number(self, world: World) -> None:
        count = bounds.PRUNE_ROWS_MAX + 7
        await world.submitted(*(world.new(key=a_key(f"k{number}", retention_s=1)) for number in range(count)))
        hand = await world.worker()
        await hand.succeed(*await hand.take())
        world.clock.advance(100)
        steps = []
        while (pruned := await world.store.prune(world.clock.now_us(), world.clock.now_us())).total:
            steps.append((pruned.runs, pruned.keys))
        assert steps == [(bounds.PRUNE_ROWS_MAX, bounds.PRUNE_ROWS_MAX), (7, 7)]
        assert await world.other.counts() == {}

    async def test_a_key_outlives_its_run_where_it_is_kept_longer(self, world: World) -> None:
        run_id = await world.finished(run=world.new(key=a_key(retention_s=500)))
        world.clock.advance(100)
        now_us = world.clock.now_us()
        assert (await world.store.prune(now_us, now_us)).total == 1
        assert await world.submitted(world.new(key=a_key())) == [run_id]

    # Backup and restore

    async def test_a_backup_is_the_store_as_of_one_moment(self, world: World, tmp_path: Path) -> None:
        self.require(Capability.BACKUPS)
        done = await world.finished(run=world.new(args=LARGE))
        [waiting, held] = await world.submitted(world.new(a_lane("part")), world.new(key=a_key()))
        hand = await world.worker()
        claimed = await hand.take_one()
        seen: list[tuple[int, int]] = []
        copy = tmp_path / "backup"
        await world.store.backup(str(copy), lambda done, total: seen.append((done, total)))
        assert seen
        assert seen[-1][0] == seen[-1][1] > 0
        await world.submitted(*world.several(5))
        restored = await self.restored(world, copy, tmp_path / "elsewhere")
        assert await restored.other.counts() == {State.SUCCEEDED: 1, State.READY: 1, State.RUNNING: 1}
        assert (await restored.view(done)).args == LARGE
        assert await restored.states([waiting, held]) == [State.READY, State.RUNNING]
        assert await restored.submitted(world.new(key=a_key())) == [claimed.id]
        await restored.close()

    async def test_nothing_from_before_a_restore_can_interfere(self, world: World, tmp_path: Path) -> None:
        self.require(Capability.BACKUPS)
        await world.submitted(*world.several(3))
        hand = await world.worker()
        begun, *held = await hand.take()
        await hand.store.mark_started(begun.id, begun.fence, hand.id)
        await world.store.backup(str(tmp_path / "backup"), lambda *_: None)
        restored = await self.restored(world, tmp_path / "backup", tmp_path / "elsewhere")
        fresh = await restored.worker()
        assert fresh.id > hand.id + 1_000, "incarnations jump"
        # Who ran when the backup was taken is dead, by lease and by name, whatever the clock says.
        hand.store = restored.store
        assert not hand.beat()
        rescued = await restored.rescue()
        assert (rescued.workers, rescued.unknown, rescued.returned) == ((hand.id,), (begun.id,), 2)
        assert await hand.succeed(*held) == [False, False]
        again = (await fresh.claim()).runs[0]
        assert again.fence > held[0].fence + 1_000, "fences jump"
        await restored.close()

    async def test_incarnations_jump_even_if_there_were_none(self, world: World, tmp_path: Path) -> None:
        self.require(Capability.BACKUPS)
        await world.store.backup(str(tmp_path / "backup"), lambda *_: None)
        stale = await world.worker()
        restored = await self.restored(world, tmp_path / "backup", tmp_path / "elsewhere")
        assert (await restored.worker()).id > stale.id + 1_000
        await restored.close()

    async def test_a_backup_replaces_nothing(self, world: World, tmp_path: Path) -> None:
        self.require(Capability.BACKUPS)
        there = str(tmp_path / "backup")
        await world.store.backup(there, lambda *_: None)
        with pytest.raises(StoreError, match="exists already"):
            await world.store.backup(there, lambda *_: None)

    async def restored(self, world: World, backup: Path, place: Path) -> World:
        """The store that a backup becomes at another place."""
        self.restore(backup, place)
        restored = World(world.clock, lambda: self.open_store(place, world.clock))
        await restored.open()
        return restored


def again(world: World, old: str) -> NewRun:
    """A run that retries another."""
    return world.new(key=a_key(), first_id=old, retry_of=old)
