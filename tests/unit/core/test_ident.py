"""Run ids: UUIDs of version 7 that ascend, whoever draws them and whatever the clock does."""

from __future__ import annotations

import threading
from itertools import pairwise
from uuid import RFC_4122, UUID

import pytest

from lineshaft.core.ident import SystemChance, earliest_id, submitted_us

NOW_US = 1_767_225_600_123_456


def test_an_id_is_a_uuid_of_version_7() -> None:
    for text in SystemChance().run_ids(NOW_US, 200):
        uuid = UUID(text)
        assert (str(uuid), uuid.version, uuid.variant) == (text, 7, RFC_4122)


@pytest.mark.parametrize("now_us", [0, 1_000, NOW_US, 281_474_976_710_655_000])
def test_an_id_tells_when_it_was_drawn(now_us: int) -> None:
    [text] = SystemChance().run_ids(now_us, 1)
    assert submitted_us(text) == now_us // 1_000 * 1_000


def test_ids_ascend_within_a_call_and_from_call_to_call() -> None:
    chance = SystemChance()
    ids = [text for step in range(50) for text in chance.run_ids(NOW_US + step * 300, 40)]
    assert all(before < after for before, after in pairwise(ids))


def test_ids_ascend_even_if_the_clock_goes_back() -> None:
    chance = SystemChance()
    [first] = chance.run_ids(NOW_US, 1)
    [second] = chance.run_ids(NOW_US - 3_600_000_000, 1)
    assert first < second
    [third] = chance.run_ids(NOW_US + 1_000, 1)
    assert second < third


def test_ids_ascend_where_their_low_bits_overflow() -> None:
    chance = SystemChance()
    high = (NOW_US // 1_000 + 1) << 12 | 0x7FF
    chance._last = (high << 62) + (1 << 62) - 5
    ids = chance.run_ids(NOW_US, 200)
    assert all(before < after for before, after in pairwise(ids))
    assert {text[15:18] for text in ids} == {"800"}
    assert all((UUID(text).version, UUID(text).variant) == (7, RFC_4122) for text in ids)


def test_ids_cannot_be_guessed_from_their_neighbours() -> None:
    values = [UUID(text).int for text in SystemChance().run_ids(NOW_US, 500)]
    steps = [after - before for before, after in pairwise(values)]
    assert len(set(steps)) > 490


def test_ids_are_unique_over_threads_and_sources() -> None:
    shared = SystemChance()
    drawn: list[list[str]] = []

    def draw(chance: SystemChance) -> None:
        drawn.append([text for _ in range(100) for text in chance.run_ids(NOW_US, 20)])

    threads = [
        threading.Thread(target=draw, args=(chance,)) for chance in (shared, shared, shared, SystemChance())
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [text for each in drawn for text in each]
    assert len(set(ids)) == 8_000
    assert all(before < after for each in drawn for before, after in pairwise(each))


def test_the_same_seed_gives_the_same_ids_and_fractions() -> None:
    first, second, other = SystemChance(7), SystemChance(7), SystemChance(8)
    assert first.run_ids(NOW_US, 5) == second.run_ids(NOW_US, 5)
    assert first.fraction() == second.fraction() != other.fraction()


def test_fractions_lie_between_zero_and_one() -> None:
    chance = SystemChance()
    assert all(0 <= chance.fraction() < 1 for _ in range(1_000))


def test_no_ids_are_no_ids() -> None:
    assert SystemChance().run_ids(NOW_US, 0) == []


def test_the_earliest_id_comes_before_all_of_its_millisecond_and_after_those_before() -> None:
    line = earliest_id(NOW_US)
    assert UUID(line).version == 7
    assert all(line < text for text in SystemChance().run_ids(NOW_US, 50))
    assert all(text < line for text in SystemChance().run_ids(NOW_US - 1_000, 50))
