"""Hearing of commits that others made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lineshaft.core.clock import SystemClock
from lineshaft.store.values import News
from lineshaft.testing.conformance.harness import Capability, Conformance, World, until


class Ear:
    """Listens on one store."""

    def __init__(self) -> None:
        self.heard = News(0)
        self.loops: set[asyncio.AbstractEventLoop] = set()

    def __call__(self, news: News) -> None:
        self.heard |= news
        self.loops.add(asyncio.get_running_loop())

    async def hears(self, news: News) -> None:
        await until(lambda: bool(self.heard & news), f"news of {news!r}, heard {self.heard!r}")


@pytest.mark.asyncio
class Wakes(Conformance):
    """The port `Wakes`."""

    @pytest_asyncio.fixture
    async def ear(self, world: World) -> AsyncIterator[Ear]:
        ear = Ear()
        end = world.other.on_news(ear)
        # Its own arrival is news to others, and perhaps to itself.
        await SystemClock().sleep(0.6)
        ear.heard = News(0)
        yield ear
        end()

    async def test_new_work_is_heard_of(self, world: World, ear: Ear) -> None:
        await world.submitted()
        await ear.hears(News.WORK)
        assert ear.loops == {asyncio.get_running_loop()}

    async def test_the_end_of_a_run_is_heard_of(self, world: World, ear: Ear) -> None:
        await world.finished()
        await ear.hears(News.FINISHED)

    async def test_a_wish_to_cancel_is_heard_of(self, world: World, ear: Ear) -> None:
        [run_id] = await world.submitted()
        hand = await world.worker()
        await hand.take_one()
        ear.heard = News(0)
        await world.store.cancel(run_id, world.clock.now_us())
        await ear.hears(News.CANCEL)

    async def test_every_commit_is_heard_of(self, world: World, ear: Ear) -> None:
        for _ in range(5):
            ear.heard = News(0)
            await world.submitted()
            await ear.hears(News.WORK)

    async def test_what_a_caller_of_its_own_committed_is_heard_of(self, world: World, ear: Ear) -> None:
        self.require(Capability.OWN_CONNECTIONS)
        connection = world.store.connect()
        self.begin(connection)
        world.store.submit_with([world.new()], connection)
        connection.commit()
        connection.close()
        await ear.hears(News.WORK)

    async def test_who_ended_listening_hears_nothing_more(self, world: World) -> None:
        first, second = Ear(), Ear()
        end_first, end_second = world.other.on_news(first), world.other.on_news(second)
        await world.submitted()
        await first.hears(News.WORK)
        await second.hears(News.WORK)
        end_first()
        first.heard = second.heard = News(0)
        await world.submitted()
        await second.hears(News.WORK)
        assert not first.heard
        end_second()
        end_second()

    async def test_a_process_that_has_gone_does_no_harm(self, world: World) -> None:
        gone = await world.another_store()
        end = gone.on_news(Ear())
        ear = Ear()
        end_other = world.other.on_news(ear)
        await SystemClock().sleep(0.1)
        end()
        await gone.close()
        for _ in range(3):
            ear.heard = News(0)
            await world.submitted()
            await ear.hears(News.WORK)
        await world.store.prune(0, world.clock.now_us())
        end_other()
