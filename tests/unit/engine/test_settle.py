"""Writing outcomes: gathered, one settlement at a time, kept until the store takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio

from lineshaft.core.errors import StoreError, StoreUnavailable
from lineshaft.core.states import FailureClass, State
from lineshaft.engine.settle import PAUSE_S_MAX, REFUSALS_MAX, Settler, ended
from lineshaft.store.values import Outcome
from lineshaft.testing.clock import VirtualClock

Answer = Callable[[Sequence[Outcome]], Sequence[bool]]


def an_outcome(run_id: str, state: State = State.SUCCEEDED) -> Outcome:
    result = b'"done"' if state is State.SUCCEEDED else None
    return Outcome(run_id, 1, 1, state, 0, 1, 1, 1, True, result, None, 0, 0, ())


def ids(outcomes: Sequence[Outcome]) -> str:
    return "".join(outcome.run_id for outcome in outcomes)


class Bench:
    """A settler whose store answers as a test wants, when it wants."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.answer: Answer = lambda outcomes: [True] * len(outcomes)
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[str] = []
        self.under_way = self.most_under_way = 0
        self.told: list[tuple[str, list[bool]]] = []
        self.outcomes: list[Outcome] = []
        self.settler = Settler(self, self.clock, self._settled)  # type: ignore[arg-type]  # of the port, `settle`

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        self.asked.append(ids(outcomes))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.open.wait()
            return self.answer(outcomes)
        finally:
            self.under_way -= 1

    def _settled(self, outcomes: Sequence[Outcome], kept: Sequence[bool]) -> None:
        self.told.append((ids(outcomes), list(kept)))
        self.outcomes += outcomes

    def put(self, run_ids: str) -> None:
        for run_id in run_ids:
            self.settler.put(an_outcome(run_id))

    async def rest(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.rest()


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    yield found
    found.open.set()
    found.answer = lambda outcomes: [True] * len(outcomes)
    await found.settler.finish(0)


def refusing(culprits: str, error: Exception) -> Answer:
    def answer(outcomes: Sequence[Outcome]) -> Sequence[bool]:
        if any(outcome.run_id in culprits and outcome.state is not State.FAILED for outcome in outcomes):
            raise error
        return [True] * len(outcomes)

    return answer


async def test_one_settlement_is_under_way_while_the_next_gathers(bench: Bench) -> None:
    bench.open.clear()
    bench.put("a")
    await bench.rest()
    bench.put("bc")
    await bench.rest()
    assert bench.asked == ["a"]
    bench.open.set()
    await bench.rest()
    assert bench.asked == ["a", "bc"]
    assert bench.most_under_way == 1
    assert bench.told == [("a", [True]), ("bc", [True, True])]
    bench.put("d")
    await bench.rest()
    assert bench.asked[-1] == "d"


async def test_a_lost_fence_is_told(bench: Bench) -> None:
    bench.answer = lambda outcomes: [outcome.run_id != "b" for outcome in outcomes]
    bench.put("abc")
    await bench.rest()
    assert bench.told == [("abc", [True, False, True])]


async def test_what_a_transaction_has_committed_is_told(bench: Bench) -> None:
    bench.settler.committed([])
    assert bench.told == []
    bench.settler.committed([an_outcome("a"), an_outcome("b")])
    assert bench.told == [("ab", [True, True])]
    assert bench.asked == []


async def test_while_the_store_is_away_it_is_asked_ever_less_often(bench: Bench) -> None:
    bench.answer = refusing("a", StoreUnavailable("locked"))
    bench.put("ab")
    await bench.rest()
    pause_s, tries = 0.05, 1
    for _ in range(20):
        assert len(bench.asked) == tries
        await bench.pass_time(pause_s - 0.001)
        assert len(bench.asked) == tries
        await bench.pass_time(0.001)
        tries += 1
        pause_s = min(pause_s * 2, PAUSE_S_MAX)
    assert set(bench.asked) == {"ab"}, "it may come back at any time: nobody is to blame"
    bench.answer = lambda outcomes: [True] * len(outcomes)
    await bench.pass_time(PAUSE_S_MAX)
    assert bench.told == [("ab", [True, True])]


@pytest.mark.parametrize("culprits", ["a", "c", "e", "bd"])
async def test_an_outcome_that_is_refused_keeps_back_no_other(bench: Bench, culprits: str) -> None:
    bench.answer = refusing(culprits, StoreError("no such thing"))
    bench.put("abcde")
    for _ in range(200):
        await bench.pass_time(PAUSE_S_MAX)
    assert sorted(run_id for run_id, _ in bench.told) == sorted({run_id for run_id, _ in bench.told})
    assert "".join(sorted(ids(bench.outcomes))) == "abcde"
    for outcome in bench.outcomes:
        if outcome.run_id in culprits:
            assert (outcome.state, outcome.result) == (State.FAILED, None)
            assert outcome.failure is not None
            assert outcome.failure.kind is FailureClass.RESULT
            assert outcome.failure.type == "lineshaft.core.errors.StoreError"
        else:
            assert outcome == an_outcome(outcome.run_id)


async def test_an_outcome_is_refused_some_times_before_it_is_given_up(bench: Bench) -> None:
    bench.answer = refusing("a", ValueError("odd"))
    bench.put("a")
    await bench.rest()
    for refusals in range(1, REFUSALS_MAX + 1):
        assert len(bench.asked) == refusals
        assert not bench.told
        await bench.pass_time(PAUSE_S_MAX)
    # The sixth time, and at once as a plain failure.
    assert len(bench.asked) == REFUSALS_MAX + 2
    assert [outcome.state for outcome in bench.outcomes] == [State.FAILED]


async def test_refusals_while_the_store_was_away_do_not_count(bench: Bench) -> None:
    bench.answer = refusing("a", StoreUnavailable("locked"))
    bench.put("a")
    for _ in range(3 * REFUSALS_MAX):
        await bench.pass_time(PAUSE_S_MAX)
    bench.answer = refusing("a", ValueError("odd"))
    await bench.pass_time(PAUSE_S_MAX)
    assert not bench.told
    bench.answer = lambda outcomes: [True] * len(outcomes)
    await bench.pass_time(PAUSE_S_MAX)
    assert bench.outcomes == [an_outcome("a")]


async def test_where_the_failure_is_refused_too_both_are_tried_again(bench: Bench) -> None:
    def never(outcomes: Sequence[Outcome]) -> Sequence[bool]:
        raise ValueError

    bench.answer = never
    bench.put("a")
    for _ in range(3 * REFUSALS_MAX):
        await bench.pass_time(PAUSE_S_MAX)
    assert not bench.told
    bench.answer = lambda outcomes: [False]
    await bench.pass_time(PAUSE_S_MAX)
    assert bench.told == [("a", [False])]
    assert bench.outcomes == [an_outcome("a")]


async def test_finishing_waits_for_what_is_gathered(bench: Bench) -> None:
    bench.open.clear()
    bench.put("a")
    await bench.rest()
    bench.put("b")
    finishing = asyncio.create_task(bench.settler.finish(60))
    await bench.rest()
    assert not finishing.done()
    bench.open.set()
    await finishing
    assert bench.told == [("a", [True]), ("b", [True])]


async def test_what_is_not_written_in_time_is_left_to_others(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.open.clear()
    bench.put("a")
    await bench.rest()
    await bench.settler.finish(0.001)
    assert "others execute their runs again" in caplog.text
    assert bench.under_way == 0
    bench.open.set()
    bench.put("b")
    await bench.rest()
    assert bench.asked == ["a"]
    assert not bench.told


def test_ended_are_of_what_has_ended_and_was_ours() -> None:
    states: list[Any] = [State.SUCCEEDED, State.FAILED, State.SCHEDULED, State.CANCELLED]
    outcomes = [an_outcome(str(number), state) for number, state in enumerate(states)]
    assert ended(outcomes, [True, True, True, False]) == outcomes[:2]
