"""Background tasks: kept alive, never silent, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

import pytest

from lineshaft.core.spawn import Background, start
from lineshaft.testing.clock import VirtualClock


async def rest() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_work_that_nobody_refers_to_is_kept_alive() -> None:
    background, done = Background(), asyncio.Event()

    async def work() -> None:
        # Held by nobody but the task that awaits it.
        await asyncio.get_running_loop().create_future()

    async def until_collected() -> None:
        try:
            await work()
        finally:
            done.set()

    background.spawn(until_collected(), "work")
    await rest()
    gc.collect()
    await rest()
    assert not done.is_set()
    await background.cancel()
    assert done.is_set()


async def test_what_ends_work_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    background = Background()

    async def fails() -> None:
        raise ValueError("no ink")

    async def fine() -> None:
        pass

    background.spawn(fine(), "fine")
    background.spawn(fails(), "printing")
    await background.wait()
    await rest()
    [record] = caplog.records
    assert record.getMessage() == "Background task printing ended with an error."
    assert record.exc_info is not None
    assert "no ink" in str(record.exc_info[1])


async def test_waiting_ends_when_all_have_ended() -> None:
    background, first, second = Background(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await first.wait()
        # Work may start more work, which is waited for as well.
        background.spawn(more(), "more")

    async def more() -> None:
        await second.wait()

    background.spawn(work(), "work")
    waiting = asyncio.create_task(background.wait())
    for event in (first, second):
        await rest()
        assert not waiting.done()
        event.set()
    await waiting


async def test_cancelling_waits_until_all_have_cleaned_up(caplog: pytest.LogCaptureFixture) -> None:
    background, cleaned = Background(), []

    async def work(number: int, clean_ups: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(clean_ups):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            cleaned.append(number)

    for number in range(3):
        background.spawn(work(number, number), "work")
    await rest()
    await background.cancel()
    assert sorted(cleaned) == [0, 1, 2]
    await background.cancel()  # nothing is left to do
    await background.wait()
    assert not caplog.records


async def test_a_service_is_started_again_a_second_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    background, clock, served = Background(), VirtualClock(), 0

    async def serve() -> None:
        nonlocal served
        served += 1
        if served < 3:
            raise ValueError("no ink")
        await asyncio.Event().wait()

    background.keep_up(serve, "printing", clock)
    await rest()
    assert served == 1
    clock.advance(0.9)
    await rest()
    assert served == 1
    for expected in (2, 3, 3):
        clock.advance(1.0)
        await rest()
        assert served == expected
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert messages == ["printing met an unexpected error; it goes on in a second."] * 2
    await background.cancel()


async def test_a_service_that_returns_is_started_again_too() -> None:
    background, clock, served = Background(), VirtualClock(), 0

    async def serve() -> None:
        nonlocal served
        served += 1

    background.keep_up(serve, "printing", clock)
    await rest()
    clock.advance(1.0)
    await rest()
    assert served == 2
    await background.cancel()
    clock.advance(1.0)
    await rest()
    assert served == 2


async def test_started_work_gives_its_result() -> None:
    async def work() -> int:
        return 5

    assert await start(work()) == 5
