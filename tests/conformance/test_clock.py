"""The clock of the test kit."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.core.clock import Clock
from lineshaft.testing.clock import START_US, VirtualClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock: Clock = VirtualClock()
    assert (clock.now_us(), clock.monotonic_s()) == (START_US, 0)
    assert (clock.now_us(), clock.boot_us()) == (clock.now_us(), clock.boot_us())


def test_all_kinds_of_time_move_together() -> None:
    clock = VirtualClock(now_us=5)
    boot_us = clock.boot_us()
    clock.advance(1.5)
    assert (clock.now_us(), clock.monotonic_s(), clock.boot_us() - boot_us) == (1_500_005, 1.5, 1_500_000)


def test_wall_time_alone_can_be_set() -> None:
    clock = VirtualClock()
    boot_us = clock.boot_us()
    clock.set_wall(7)
    assert (clock.now_us(), clock.monotonic_s(), clock.boot_us()) == (7, 0, boot_us)
    with pytest.raises(ValueError, match="set_wall"):
        clock.advance(-1)


def test_a_reboot_begins_boot_time_anew() -> None:
    clock = VirtualClock()
    boot_id = clock.boot_id()
    clock.advance(5)
    clock.reboot()
    assert clock.boot_id() != boot_id
    assert (clock.boot_us(), clock.monotonic_s()) == (0, 5)


async def test_sleepers_wake_when_their_time_has_come_and_in_order() -> None:
    clock = VirtualClock()
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    tasks = [asyncio.create_task(sleeper(name, at)) for name, at in (("c", 3), ("a", 1), ("b", 2), ("b2", 2))]
    await clock.sleep(0)
    assert clock.sleepers == 4
    for seconds, expected in ((0.999, []), (0.001, ["a"]), (2, ["a", "b", "b2", "c"])):
        clock.advance(seconds)
        await clock.sleep(0)
        assert woken == expected
    await asyncio.gather(*tasks)
    assert clock.sleepers == 0


async def test_a_sleeper_that_is_cancelled_is_forgotten() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleepers == 0
    clock.advance(10)
