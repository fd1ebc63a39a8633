"""Lending the writer to user code: what it writes, submits and achieves commits as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from sqlalchemy import text

from lineshaft.core import bounds
from lineshaft.core.errors import KeyReused, TransactionRefused, TransactionTooLong
from lineshaft.core.spawn import Background
from lineshaft.core.states import State
from lineshaft.store.port import Store
from lineshaft.testing.conformance.harness import Capability, Conformance, World, a_key, until

FORBIDDEN = ("COMMIT", "ROLLBACK", "BEGIN", "PRAGMA synchronous = OFF", "ATTACH ':memory:' AS elsewhere")


@pytest.mark.asyncio
class Transactions(Conformance):
    """The port `Transactions`."""

    forbidden: ClassVar[Sequence[str]] = FORBIDDEN
    """Statements that a lent transaction refuses."""
    part_control: ClassVar[Sequence[str]] = ()
    """Statements with which the part of one run could be ended, by the names that the backend gives."""

    # Committing

    async def test_all_of_it_commits_together(self, world: World) -> None:
        await ledger(world)
        run = world.new()
        async with world.store.transaction() as tx:
            write(tx, "Ada")
            assert list(tx.submit([run])) == [(run.id, True)]
            assert await written(world) == []
            assert await world.other.view([run.id]) == [None]
            tx.commit()
        assert await written(world) == ["Ada"]
        assert await world.state(run.id) is State.READY

    async def test_what_is_not_committed_is_gone(self, world: World) -> None:
        await ledger(world)
        run = world.new(key=a_key())
        async with world.store.transaction() as tx:
            write(tx, "Ada")
            tx.submit([run])

        async def raising() -> None:
            async with world.store.transaction() as tx:
                write(tx, "Bo")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await raising()
        assert await written(world) == []
        assert await world.submitted(run) == [run.id]

    async def test_a_refused_key_leaves_the_rest_standing(self, world: World) -> None:
        await ledger(world)
        [held] = await world.submitted(world.new(key=a_key()))
        async with world.store.transaction() as tx:
            with pytest.raises(KeyReused):
                tx.submit([world.new(), world.new(key=a_key(digest="d2"))])
            assert list(tx.submit([world.new(key=a_key())])) == [(held, False)]
            write(tx, "Ada")
            tx.commit()
        assert await written(world) == ["Ada"]
        assert await world.count() == 1

    async def test_submitting_with_the_transaction_itself(self, world: World) -> None:
        first, second = world.new(), world.new()
        async with world.store.transaction() as tx:
            world.store.submit_with([first], tx)
            await world.store.submit_with_async([second], tx)
            tx.commit()
        assert await world.states([first.id, second.id]) == [State.READY] * 2

    async def test_submitting_with_its_sessions(self, world: World) -> None:
        first, second = world.new(), world.new()
        async with world.store.transaction() as tx:
            with tx.session() as session:
                world.store.submit_with([first], session)
            session = tx.async_session()
            await world.store.submit_with_async([second], session)
            await session.close()
            assert await world.other.view([first.id, second.id]) == [None, None]
            tx.commit()
        assert await world.states([first.id, second.id]) == [State.READY] * 2

    async def test_sessions_see_what_the_transaction_wrote(self, world: World) -> None:
        await ledger(world)
        async with world.store.transaction() as tx:
            write(tx, "Ada")
            session = tx.async_session()
            await session.execute(text("INSERT INTO ledger (who) VALUES ('Bo')"))
            rows = await session.execute(text("SELECT who FROM ledger ORDER BY who"))
            assert [who for (who,) in rows] == ["Ada", "Bo"]
            await tx.finish_async(session)
            await session.close()
            tx.commit()
        assert await written(world) == ["Ada", "Bo"]

    # Parts

    async def test_parts_commit_with_their_outcomes(self, world: World) -> None:
        await ledger(world)
        await world.submitted(*world.several(3))
        hand = await world.worker()
        runs = await hand.take()
        async with world.store.transaction() as tx:
            for run, who in zip(runs, ("Ada", "Bo", "Cy"), strict=True):
                tx.savepoint()
                write(tx, who)
                if who == "Bo":
                    tx.rollback_savepoint()
                else:
                    assert list(tx.release([hand.ended(run)])) == [True]
            assert await world.states([run.id for run in runs]) == [State.RUNNING] * 3
            tx.commit()
        assert await written(world) == ["Ada", "Cy"]
        states = [State.SUCCEEDED, State.RUNNING, State.SUCCEEDED]
        assert await world.states([run.id for run in runs]) == states

    async def test_a_part_whose_fence_was_lost_writes_nothing(self, world: World) -> None:
        await ledger(world)
        await world.submitted(*world.several(2))
        dead, alive = await world.worker(), await world.worker(world.other)
        lost, other = await dead.take()
        await world.die(dead)
        await world.rescue(world.other)
        held = await alive.claim()
        assert {run.id for run in held.runs} <= {lost.id, other.id}
        submitted = world.new()
        async with world.store.transaction() as tx:
            tx.savepoint()
            write(tx, "stale")
            tx.submit([submitted])
            assert list(tx.release([dead.ended(lost)])) == [False]
            tx.savepoint()
            write(tx, "good")
            assert list(tx.release([alive.ended(held.runs[0])])) == [True]
            tx.commit()
        assert await written(world) == ["good"]
        assert await world.other.view([submitted.id]) == [None]
        assert await world.state(held.runs[0].id) is State.SUCCEEDED

    async def test_one_lost_fence_among_many_undoes_the_part(self, world: World) -> None:
        await ledger(world)
        await world.submitted(*world.several(5))
        hand = await world.worker()
        runs = await hand.take()
        outcomes = [hand.ended(run) for run in runs]
        outcomes[3] = outcomes[3]._replace(fence=99)
        async with world.store.transaction() as tx:
            tx.savepoint()
            write(tx, "all five")
            assert list(tx.release(outcomes)) == [True, True, True, False, True]
            tx.commit()
        assert await written(world) == []
        assert await world.other.counts() == {State.RUNNING: 5}

    async def test_an_outcome_that_rolled_back_can_be_settled_otherwise(self, world: World) -> None:
        await world.submitted()
        hand = await world.worker()
        claimed = await hand.take_one()
        async with world.store.transaction() as tx:
            tx.savepoint()
            assert list(tx.release([hand.ended(claimed)])) == [True]
        assert await world.state(claimed.id) is State.RUNNING
        assert await hand.settle(hand.ended(claimed, State.FAILED)) == [True]

    # One at a time, for a bounded time

    async def test_transactions_take_turns(self, world: World) -> None:
        await ledger(world)
        order: list[str] = []

        async def enter(who: str) -> None:
            async with world.store.transaction() as tx:
                order.append(f"{who} in")
                write(tx, who)
                await asyncio.to_thread(len, order)
                order.append(f"{who} out")
                tx.commit()

        await asyncio.gather(*(enter(who) for who in ("Ada", "Bo", "Cy")))
        assert [entry.split()[0] for entry in order[::2]] == [entry.split()[0] for entry in order[1::2]]
        assert await written(world) == ["Ada", "Bo", "Cy"]

    async def test_writes_wait_for_a_transaction_and_then_go_on(self, world: World) -> None:
        self.require(Capability.CONCURRENT_WRITES)
        background = Background()
        lent = asyncio.Event()

        async def submit(store: Store) -> None:
            await lent.wait()
            await store.submit([world.new()])

        mine = background.spawn(submit(world.store), "mine")
        others = background.spawn(submit(world.other), "others")
        async with world.store.transaction() as tx:
            lent.set()
            await asyncio.wait([mine, others], timeout=0.05)
            tx.submit([world.new()])
            assert not mine.done()
            assert not others.done()
            tx.commit()
        await asyncio.gather(mine, others)
        assert await world.count() == 3

    async def test_who_gives_up_waiting_hurts_nobody(self, world: World) -> None:
        lent = asyncio.Event()
        waiting = Background().spawn(self.borrowing(world, lent), "waiting")
        async with world.store.transaction() as tx:
            lent.set()
            await asyncio.wait([waiting], timeout=0.05)
            waiting.cancel()
            tx.commit()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await world.store.submit([world.new()]))[0].created

    async def borrowing(self, world: World, lent: asyncio.Event) -> None:
        await lent.wait()
        async with world.store.transaction():
            raise AssertionError("it was cancelled before it got the writer")

    async def test_who_holds_it_too_long_is_cut_off_and_the_writer_goes_on(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.require(Capability.BOUNDED_TRANSACTIONS)
        await ledger(world)
        monkeypatch.setattr(bounds, "WRITER_HOLD_S_MAX", 0.2)
        hand = await world.worker()
        async with world.store.transaction() as tx:
            write(tx, "Ada")
            # Nothing tells the writer to go on but its patience.
            assert await asyncio.to_thread(hand.beat)
            with pytest.raises(TransactionTooLong):
                tx.submit([world.new()])
            with pytest.raises(TransactionTooLong):
                tx.commit()
        assert await written(world) == []
        assert await world.count() == 0
        async with world.store.transaction() as tx:
            write(tx, "Bo")
            tx.commit()
        assert await written(world) == ["Bo"]

    async def test_what_would_wait_for_the_own_transaction_is_refused_at_once(self, world: World) -> None:
        [run_id] = await world.submitted()

        async def borrow() -> None:
            async with world.store.transaction():
                pass

        async with world.store.transaction() as tx:
            for use in (
                lambda: world.store.submit([world.new()]),
                lambda: Background().spawn(world.store.submit([world.new()]), "inside"),
                lambda: world.store.cancel(run_id, world.clock.now_us()),
                borrow,
            ):
                with pytest.raises(TransactionRefused, match="tx="):
                    await use()
            tx.commit()
            # It is over, though its block is not.
            await world.submitted()
        await world.submitted()
        assert await world.count() == 3

    async def test_a_transaction_is_over_when_its_block_ends(self, world: World) -> None:
        async with world.store.transaction() as tx:
            tx.commit()
        for use in (tx.commit, tx.savepoint, lambda: tx.submit([world.new()])):
            with pytest.raises(TransactionTooLong):
                use()
        assert await world.count() == 0

    # What it must not do

    async def test_transaction_control_is_refused_and_the_transaction_stands(self, world: World) -> None:
        self.require(Capability.GUARDED_TRANSACTIONS)
        await ledger(world)
        async with world.store.transaction() as tx:
            write(tx, "Ada")
            for statement in self.forbidden:
                with tx.session() as session, pytest.raises(TransactionRefused):
                    session.execute(text(statement))
            assert await written(world) == []
            tx.commit()
        assert await written(world) == ["Ada"]

    async def test_a_part_cannot_be_ended_by_what_it_executes(self, world: World) -> None:
        self.require(Capability.GUARDED_TRANSACTIONS)
        await ledger(world)
        async with world.store.transaction() as tx:
            for statement in self.part_control:
                tx.savepoint()
                write(tx, "Ada")
                with tx.session() as session, pytest.raises(TransactionRefused):
                    session.execute(text(statement))
                tx.rollback_savepoint()
            tx.savepoint()
            with tx.session() as session, session.begin_nested():
                session.execute(text("INSERT INTO ledger (who) VALUES ('Bo')"))
            tx.release([])
            tx.commit()
        assert await written(world) == ["Bo"]

    # Connections of the caller's own

    async def test_a_connection_of_ones_own_reads_and_writes(self, world: World) -> None:
        self.require(Capability.OWN_CONNECTIONS)
        await ledger(world)
        connection = world.store.connect()
        self.begin(connection)
        connection.execute("INSERT INTO ledger (who) VALUES ('Ada')")
        connection.commit()
        connection.close()
        assert await written(world) == ["Ada"]

    async def test_an_engine_of_ones_own_reads_and_writes(self, world: World) -> None:
        self.require(Capability.OWN_CONNECTIONS)
        await ledger(world)
        engine = world.store.engine()
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO ledger (who) VALUES ('Ada')"))
        engine.dispose()
        assert await written(world) == ["Ada"]

    async def test_a_commit_is_news(self, world: World) -> None:
        heard: list[Any] = []
        end = world.other.on_news(heard.append)
        await until(lambda: bool(heard), "the other process listens")
        heard.clear()
        async with world.store.transaction() as tx:
            tx.submit([world.new()])
            tx.commit()
        await until(lambda: bool(heard), "the other process hears of the commit")
        end()


async def ledger(world: World) -> None:
    """A table of the user's own."""
    async with world.store.transaction() as tx:
        with tx.session() as session:
            session.execute(text("CREATE TABLE ledger (who TEXT NOT NULL)"))
        tx.commit()


def write(tx: Any, who: str) -> None:
    """Write a row of the user's own."""
    with tx.session() as session:
        session.execute(text("INSERT INTO ledger (who) VALUES (:who)"), {"who": who})
        tx.finish(session)


async def written(world: World) -> list[str]:
    """What others see in the ledger."""
    engine = world.other.engine()
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return [who for (who,) in connection.execute(text("SELECT who FROM ledger ORDER BY who"))]
    finally:
        engine.dispose()
