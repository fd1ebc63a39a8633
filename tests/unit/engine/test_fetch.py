"""When a worker claims, and what it asks for: a fetcher whose store replies as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from lineshaft.core import bounds
from lineshaft.core.errors import StoreUnavailable
from lineshaft.engine.fetch import PAUSE_S_MAX, Fetcher, _Round
from lineshaft.engine.registry import Registry
from lineshaft.store.values import Claimed, ClaimReply, ClaimRequest, Held, Lane, OpenLane
from lineshaft.testing.clock import VirtualClock
from tests.support import eventually

NOTHING = ClaimReply((), -1, False, None, suspects_wait=False)
WORKER = 7


def a_run() -> Claimed:
    return Claimed("r1", Lane("default", "greet", "1", ""), 1, 0, 0, b"[]", 0, "r1", None, False, 0)


def gives(*, more: bool = False, last_lane: int = -1, next_due_us: int | None = None) -> ClaimReply:
    return ClaimReply((a_run(),), last_lane, more, next_due_us, suspects_wait=False)


HELD = (Held("r7", 3, Lane("default", "greet", "1", ""), 0, 0),)


class Bench:
    """A fetcher, its store, and the worker around it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.replies: list[ClaimReply | Exception] = []
        self.requests: list[ClaimRequest] = []
        self.taken: list[tuple[Sequence[Claimed], int]] = []
        self.given_back: list[Sequence[Held]] = []
        self.room = {"loop": 5}
        self.idle = self.is_open = True
        self.fetcher = Fetcher(
            store=self,  # type: ignore[arg-type]  # of the port it has `claim` and `held`
            clock=self.clock,
            registry=Registry(),
            queues=frozenset({"default"}),
            free=lambda: self.room,
            place_of=lambda _: "loop",
            idle=lambda: self.idle,
            may_claim=lambda: self.is_open,
            take=lambda runs, worker: self.taken.append((runs, worker)),
            give_back=self.given_back.append,
        )
        self.serving = asyncio.create_task(self.fetcher.serve(lambda: WORKER))

    async def claim(self, request: ClaimRequest) -> ClaimReply:
        self.requests.append(request)
        reply = self.replies.pop(0) if self.replies else NOTHING
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def held(self, worker: int) -> Sequence[Held]:
        assert worker == WORKER
        return HELD

    async def claims(self, *replies: ClaimReply | Exception) -> list[ClaimRequest]:
        """What is asked for when the worker is woken, until it waits again."""
        self.replies += replies
        seen = len(self.requests)
        self.fetcher.wake()
        await self.rest()
        return self.requests[seen:]

    async def rest(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.rest()


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    await found.rest()
    [request] = found.requests  # it begins with a claim
    assert request.after_lane == -1
    assert not found.fetcher.backlog
    yield found
    found.serving.cancel()
    await asyncio.gather(found.serving, return_exceptions=True)


# What is claimed, and when


async def test_what_is_claimed_is_handed_over(bench: Bench) -> None:
    reply = gives()
    [request] = await bench.claims(reply)
    assert (request.worker, request.now_us, request.idle) == (WORKER, bench.clock.now_us(), True)
    assert bench.taken == [(reply.runs, WORKER)]
    await bench.claims(NOTHING)
    assert len(bench.taken) == 1


async def test_what_a_failed_claim_may_have_taken_is_given_back(bench: Bench) -> None:
    await bench.claims(StoreUnavailable("the reply was lost"))
    assert bench.given_back == []
    await bench.pass_time(1)
    assert bench.given_back == [HELD]
    await bench.claims(NOTHING)
    assert bench.given_back == [HELD], "once"


async def test_a_claim_that_ends_in_an_error_of_ours_is_in_doubt_too(bench: Bench) -> None:
    bench.replies = [RuntimeError("a fault")]
    with pytest.raises(RuntimeError):
        await bench.fetcher._claim(WORKER)
    await bench.claims(NOTHING)
    assert bench.given_back == [HELD]


async def test_it_claims_again_at_once_while_there_is_more(bench: Bench) -> None:
    assert len(await bench.claims(gives(more=True), gives(more=True), gives())) == 3
    assert len(bench.taken) == 3


async def test_it_goes_on_behind_the_lane_it_came_to(bench: Bench) -> None:
    requests = await bench.claims(gives(more=True, last_lane=40), gives(more=True, last_lane=80), NOTHING)
    assert [request.after_lane for request in requests] == [-1, 40, 80]
    [request] = await bench.claims()
    assert request.after_lane == -1


@pytest.mark.parametrize("room", [{}, {"loop": 0}, {"loop": 0, "thread": 0}])
async def test_without_room_nothing_is_claimed(bench: Bench, room: dict[str, int]) -> None:
    bench.room = room
    assert await bench.claims() == []
    assert bench.fetcher.backlog, "what woke it is left behind until there is room"
    bench.room = {"loop": 0, "thread": 1}
    assert len(await bench.claims()) == 1


async def test_a_worker_that_takes_nothing_more_claims_nothing(bench: Bench) -> None:
    bench.is_open = False
    assert await bench.claims() == []


async def test_room_may_end_between_two_claims(bench: Bench) -> None:
    bench.room = {"loop": 1}

    def take(runs: Sequence[Claimed], worker: int) -> None:
        bench.room = {"loop": 0}

    bench.fetcher._take = take
    assert len(await bench.claims(gives(more=True), gives())) == 1
    assert bench.fetcher.backlog


@pytest.mark.parametrize(
    ("reply", "room", "backlog"),
    [
        (gives(), {"loop": 5}, False),
        (gives(more=True), {"loop": 5}, True),
        (gives(), {"loop": 5, "thread": 0}, True),
    ],
)
async def test_whether_runs_were_left_behind(
    bench: Bench, reply: ClaimReply, room: dict[str, int], backlog: bool
) -> None:
    bench.room = room
    bench.replies = [reply]
    await bench.fetcher._claim(WORKER)
    assert bench.fetcher.backlog is backlog


async def test_each_claim_goes_on_behind_who_was_served_last(bench: Bench) -> None:
    shared: list[str] = []

    async def claim(request: ClaimRequest) -> ClaimReply:
        lanes = [OpenLane(Lane("default", "greet", "1", tenant), 0) for tenant in "abc"]
        lanes.append(OpenLane(Lane("elsewhere", "greet", "1", "z"), 0))
        shares = request.plan(lanes)
        shared.extend(each.lane.tenant for each in shares)
        return ClaimReply(
            [a_run()._replace(lane=each.lane) for each in shares], -1, False, None, suspects_wait=False
        )

    bench.claim = claim  # type: ignore[method-assign]
    for room in (1, 4, 1, 2, 4, 1):
        bench.room = {"loop": room}
        await bench.claims()
    assert shared == [*"a", *"bca", *"b", *"ca", *"bca", *"b"], "and nothing of other queues"


async def test_it_waits_until_something_is_due(bench: Bench) -> None:
    due_us = bench.clock.now_us() + 60_000_000
    await bench.claims(ClaimReply((), -1, False, due_us, suspects_wait=False))
    assert bench.fetcher._next_due_us == due_us
    seen = len(bench.requests)
    bench.fetcher.due_at(due_us + 1)
    await bench.rest()
    assert len(bench.requests) == seen, "later than what it waits for"
    bench.fetcher.due_at(due_us - 1)
    await bench.rest()
    assert len(bench.requests) == seen + 1, "it looks, since that is earlier"


async def test_what_is_due_wakes_it(bench: Bench) -> None:
    """The clock on the wall is virtual, and the wait is real: a thousandth of a second here."""
    due_us = bench.clock.now_us() + 1_000
    seen = len(bench.requests)
    await bench.claims(ClaimReply((), -1, False, due_us, suspects_wait=False))
    await eventually(lambda: len(bench.requests) == seen + 2)
    assert bench.fetcher._next_due_us is None


async def test_what_was_due_is_forgotten_where_nothing_may_be_claimed(bench: Bench) -> None:
    """It would wait for nothing, again and again."""
    bench.room = {"loop": 0}
    bench.fetcher.due_at(bench.clock.now_us() + 1_000)
    await eventually(lambda: bench.fetcher._next_due_us is None)


# A store that is away


async def test_while_the_store_is_away_it_is_asked_ever_less_often(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.replies = [StoreUnavailable("locked")] * 12
    began_s = bench.clock.monotonic_s()
    seen = len(bench.requests)
    bench.fetcher.wake()
    await bench.rest()
    pause_s = 0.05
    for tries in range(1, 12):
        assert len(bench.requests) == seen + tries
        assert bench.fetcher.failing_since_s == began_s
        await bench.pass_time(pause_s - 0.001)
        assert len(bench.requests) == seen + tries
        await bench.pass_time(0.001)
        pause_s = min(pause_s * 2, PAUSE_S_MAX)
    assert len(caplog.records) == 1, "it is said once"
    await bench.pass_time(PAUSE_S_MAX)
    assert bench.fetcher.failing_since_s is None
    # The next time it begins anew.
    await bench.claims(StoreUnavailable("locked"))
    await bench.pass_time(0.05)
    assert not bench.replies
    assert len(caplog.records) == 2


# Suspects


def suspects(*, given: bool) -> ClaimReply:
    return ClaimReply((a_run(),) if given else (), -1, False, None, suspects_wait=True)


async def test_suspects_wait_for_an_idle_worker_but_not_for_ever(bench: Bench) -> None:
    bench.idle = False
    assert not bench.fetcher.waits_for_idleness
    for passed_s in (0.0, bounds.SUSPECTS_PATIENCE_S):
        await bench.pass_time(passed_s)
        [request] = await bench.claims(suspects(given=False))
        assert not request.idle
        assert bench.fetcher.waits_for_idleness
    await bench.pass_time(0.001)
    request, after = await bench.claims(suspects(given=True))
    assert request.idle, "it takes them beside its work in the end"
    assert not bench.fetcher.waits_for_idleness
    assert not after.idle, "and goes on at once, for there may be others; for suspects it waits as long again"


async def test_idleness_that_comes_during_a_claim_is_not_missed(bench: Bench) -> None:
    bench.idle = False

    async def claim(request: ClaimRequest) -> ClaimReply:
        bench.idle = True  # the last run ends while the store is asked
        bench.requests.append(request)
        return suspects(given=request.idle)

    bench.claim = claim  # type: ignore[method-assign]
    first, second = await bench.claims()
    assert (first.idle, second.idle) == (False, True)


async def test_suspects_that_another_took_are_waited_for_no_more(bench: Bench) -> None:
    bench.idle = False
    await bench.claims(suspects(given=False))
    await bench.pass_time(bounds.SUSPECTS_PATIENCE_S + 1)
    [request] = await bench.claims(NOTHING)
    assert request.idle
    [request] = await bench.claims()
    assert not request.idle


async def test_while_suspects_wait_it_looks_every_second(bench: Bench) -> None:
    await bench.claims(suspects(given=False))
    assert bench.fetcher._next_due_us == bench.clock.now_us() + 1_000_000
    soon_us = bench.clock.now_us() + 500_000
    await bench.claims(ClaimReply((), -1, False, soon_us, suspects_wait=True))
    assert bench.fetcher._next_due_us == soon_us


async def test_nothing_is_claimed_beside_suspects_for_a_while(bench: Bench) -> None:
    await bench.claims(suspects(given=True))
    until_us = bench.clock.now_us() + int(bounds.SUSPECTS_ALONE_S_MAX * 1_000_000)
    assert bench.fetcher._next_due_us == until_us
    bench.idle = False
    assert await bench.claims() == []
    assert bench.fetcher.waits_for_idleness, "it goes on once they have ended"
    assert bench.fetcher._next_due_us == until_us
    await bench.pass_time(bounds.SUSPECTS_ALONE_S_MAX - 1)
    assert await bench.claims() == []
    assert bench.fetcher._next_due_us == until_us
    await bench.pass_time(1)
    assert len(await bench.claims()) == 1, "they execute for so long that others come in beside them"


async def test_once_suspects_have_ended_it_goes_on(bench: Bench) -> None:
    await bench.claims(suspects(given=True))
    bench.idle = False
    assert await bench.claims() == []
    bench.idle = True
    assert len(await bench.claims()) == 1
    bench.idle = False
    assert len(await bench.claims()) == 1, "what it took since are no suspects"


# Rounds over many lanes


class Lanes:
    """Lanes of which one claim visits a few, as `store/sqlite/claims.py` does."""

    def __init__(self, count: int, visited_max: int, giving: set[int]) -> None:
        self.count, self.visited_max, self.giving = count, visited_max, giving
        self.visited: list[list[int]] = []

    def claim(self, after_lane: int) -> ClaimReply:
        order = [*range(after_lane + 1, self.count), *range(min(after_lane + 1, self.count))]
        visited = order[: self.visited_max]
        self.visited.append(visited)
        visited_all = len(visited) < self.visited_max
        found = any(lane in self.giving for lane in visited)
        return ClaimReply(
            (a_run(),) if found else (),
            -1 if visited_all else visited[-1],
            found or not visited_all,
            1_000 + min(visited, default=0),
            suspects_wait=False,
        )


@given(st.integers(0, 40), st.integers(1, 12), st.sets(st.integers(0, 39), max_size=3), st.integers(-1, 39))
def test_a_round_visits_every_lane_until_one_gives_and_then_ends(
    count: int, visited_max: int, giving: set[int], after_lane: int
) -> None:
    lanes, walk = Lanes(count, visited_max, giving), _Round()
    giving = {lane for lane in giving if lane < count}
    after_lane = min(after_lane, count - 1)
    for _ in range(2):
        lanes.visited.clear()
        while True:
            reply = lanes.claim(after_lane)
            again = walk.goes_on(after_lane, reply)
            after_lane = reply.last_lane
            if not again or reply.runs:
                break
            assert len(lanes.visited) <= 2 * (count // visited_max + 2), "it comes to an end"
        seen = {lane for visited in lanes.visited for lane in visited}
        assert bool(reply.runs) == bool(giving)
        assert again == (bool(reply.runs) and reply.more)
        if not giving:
            assert seen == set(range(count))
            assert walk.next_due_us == 1_000, "the earliest that any of them told"


def test_of_several_due_times_the_earliest_counts() -> None:
    def told(*due_us: Any) -> int | None:
        walk = _Round()
        for number, each in enumerate(due_us):
            walk.goes_on(number * 10 - 1, ClaimReply((), number * 10 + 9, True, each, suspects_wait=False))
        return walk.next_due_us

    assert told(None) is None
    assert told(5) == 5
    assert told(5, None, 7) == 5
    assert told(None, 7, 5) == 5
