"""What the suites stand on: a store seen from two sides, a clock in hand, workers that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import pytest_asyncio

from lineshaft.core import bounds
from lineshaft.core.clock import Clock, SystemClock
from lineshaft.core.ident import SystemChance
from lineshaft.core.states import FailureClass, State
from lineshaft.store.port import Store
from lineshaft.store.values import (
    Claimed,
    ClaimReply,
    ClaimRequest,
    Failure,
    Gate,
    Lane,
    LaneShare,
    NewRun,
    NewWorker,
    OpenLane,
    Outcome,
    Plan,
    RunFilter,
    RunView,
    SubmissionKey,
)
from lineshaft.testing.clock import VirtualClock

T = TypeVar("T")

LEASE_S = 15.0
ANYWHERE_US = 2**62
"""A bound on the place in a lane that no run reaches."""
PATIENCE_S = 20.0
"""How long a test waits for what must come; nothing takes nearly as long."""


class Capability(StrEnum):
    """What a backend may lack, with a reason; see `Conformance.lacks`."""

    BOUNDED_TRANSACTIONS = "cuts off a transaction that holds the writer too long"
    CONCURRENT_WRITES = "lets a write of another store wait while a transaction is lent"
    OWN_CONNECTIONS = "gives raw connections and SQLAlchemy engines on which submissions join a transaction"
    GUARDED_TRANSACTIONS = "refuses transaction control, settings and other files inside lent transactions"
    BACKUPS = "copies itself while in use, and is restored from the copy"


class Conformance:
    """Base of every suite. A backend overrides `open_store`, and whatever else differs."""

    lacks: ClassVar[Mapping[Capability, str]] = {}
    """Capabilities that this backend does not have, and why."""

    async def open_store(self, tmp_path: Path, clock: Clock) -> Store:
        """Open the store that belongs to `tmp_path`; a second call opens it as another process would."""
        raise NotImplementedError

    def restore(self, backup: Path, tmp_path: Path) -> None:
        """Put a backup in the place that `open_store` opens for this `tmp_path`, a folder to be made."""
        raise NotImplementedError

    def end_process(self, store: Store, worker: int) -> None:
        """Have it look to everybody as if the process of a worker had died, where that can be known for certain."""
        raise NotImplementedError

    def begin(self, connection: Any) -> None:
        """Begin a transaction on a connection that `Store.connect` returned."""
        connection.execute("BEGIN")

    def require(self, capability: Capability) -> None:
        """Skip the test where the backend lacks what it is about."""
        if capability in self.lacks:
            pytest.skip(f"{type(self).__name__} lacks {capability.name}: {self.lacks[capability]}")

    @pytest_asyncio.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[World]:
        clock = VirtualClock()

        async def open_another() -> Store:
            return await self.open_store(tmp_path, clock)

        world = World(clock, open_another, end_process=self.end_process)
        await world.open()
        yield world
        await world.close()


class World:
    """One store as two processes see it (`store` and `other`), with one clock."""

    store: Store
    other: Store

    def __init__(
        self,
        clock: VirtualClock,
        open_another: Callable[[], Any],
        seed: int = 1,
        end_process: Callable[[Store, int], None] | None = None,
    ) -> None:
        self.clock = clock
        self.chance = SystemChance(seed)
        self._open_another = open_another
        self._end_process = end_process
        self._open: list[Store] = []
        self._hands: list[Hand] = []

    async def open(self) -> None:
        self.store = await self.another_store()
        self.other = await self.another_store()

    async def another_store(self) -> Store:
        store: Store = await self._open_another()
        self._open.append(store)
        return store

    async def close(self) -> None:
        while self._open:
            await self._open.pop().close()

    # Runs

    def new(
        self,
        lane: Lane | None = None,
        *,
        args: bytes = b"[]",
        priority: int = 0,
        delay_s: float = 0.0,
        key: SubmissionKey | None = None,
        first_id: str | None = None,
        retry_of: str | None = None,
    ) -> NewRun:
        """A run submitted now."""
        now_us = self.clock.now_us()
        due_us = now_us + round(delay_s * 1_000_000)
        [run_id] = self.chance.run_ids(now_us, 1)
        order_us = place_us(due_us, priority)
        return NewRun(
            run_id, lane or a_lane(), args, now_us, due_us, order_us, priority, key, first_id, retry_of
        )

    def several(self, count: int, lane: Lane | None = None) -> list[NewRun]:
        return [self.new(lane) for _ in range(count)]

    async def submitted(self, *runs: NewRun) -> list[str]:
        """Submit runs; the ids of those that hold their keys."""
        return [accepted.id for accepted in await self.store.submit(runs or [self.new()])]

    async def view(self, run_id: str) -> RunView:
        """A run as the other process sees it."""
        [found] = await self.other.view([run_id])
        assert found is not None, f"run {run_id} is gone"
        return found

    async def state(self, run_id: str) -> State:
        return (await self.view(run_id)).state

    async def states(self, run_ids: Sequence[str]) -> list[State]:
        return [view.state for view in await self.other.view(run_ids) if view is not None]

    async def count(self) -> int:
        """Runs in the store, finished or not."""
        return len(await self.other.listing(RunFilter(rows_max=1_000_000)))

    # Workers

    async def worker(self, store: Store | None = None, *tasks: str, lease_s: float = LEASE_S) -> Hand:
        """A worker that knows these tasks, in version 1; it stays alive while others die."""
        hand = Hand(self, store or self.store, tasks or ("greet",))
        await hand.register(lease_s)
        self._hands.append(hand)
        return hand

    async def die(self, *dead: Hand) -> None:
        """Let the leases of some workers run out, while all others beat."""
        self._hands = [hand for hand in self._hands if hand not in dead]
        self.clock.advance(LEASE_S + 1)
        for hand in self._hands:
            assert hand.beat(), "a worker that beats is alive"

    def crash(self, *dead: Hand) -> None:
        """Let the processes of some workers die."""
        self._hands = [hand for hand in self._hands if hand not in dead]
        assert self._end_process is not None
        for hand in dead:
            self._end_process(hand.store, hand.id)

    async def rescue(self, store: Store | None = None) -> Any:
        return await (store or self.store).rescue(self.clock.now_us())

    async def finished(self, state: State = State.SUCCEEDED, run: NewRun | None = None) -> str:
        """The id of a run that has ended so."""
        [run_id] = await self.submitted(run or self.new())
        hand = await self.worker()
        claimed = next(each for each in await hand.take() if each.id == run_id)
        assert await hand.settle(hand.ended(claimed, state)) == [True]
        await self.store.unregister(hand.id)
        self._hands.remove(hand)
        return run_id


class Hand:
    """A worker whose every move a test makes."""

    def __init__(self, world: World, store: Store, tasks: Sequence[str]) -> None:
        self.world = world
        self.store = store
        self.tasks = tasks
        self.id = 0

    async def register(self, lease_s: float = LEASE_S) -> None:
        self.id = await self.store.register(
            NewWorker(
                host="workshop",
                pid=4711,
                started_us=self.world.clock.now_us(),
                queues=(),
                tasks=tuple((task, "1") for task in self.tasks),
                lease_us=round(lease_s * 1_000_000),
            )
        )

    def beat(self) -> bool:
        return self.store.beat(self.id, round(LEASE_S * 1_000_000))

    # Taking

    async def claim(
        self,
        *gates: Gate,
        rows_max: int = 1_000,
        plan: Plan | None = None,
        after_lane: int = -1,
        idle: bool = True,
    ) -> ClaimReply:
        """One claim, by a plan of the test's own or one that takes from every lane of a known task."""
        request = ClaimRequest(
            worker=self.id,
            now_us=self.world.clock.now_us(),
            plan=plan or self.everything(rows_max, gates),
            after_lane=after_lane,
            idle=idle,
        )
        return await self.store.claim(request)

    def everything(self, rows_max: int = 1_000, gates: Sequence[Gate] = ()) -> Plan:
        def plan(lanes: Sequence[OpenLane]) -> Sequence[LaneShare]:
            return [
                LaneShare(each.lane, rows_max, ANYWHERE_US, tuple(gates))
                for each in lanes
                if each.lane.task in self.tasks
            ]

        return plan

    async def take(self, *gates: Gate, rows_max: int = 1_000, plan: Plan | None = None) -> list[Claimed]:
        """Claim while the store says that there may be more."""
        runs: list[Claimed] = []
        after_lane = -1
        while True:
            reply = await self.claim(*gates, rows_max=rows_max, plan=plan, after_lane=after_lane)
            runs += reply.runs
            after_lane = reply.last_lane
            if not (reply.more and reply.runs):
                return runs

    async def take_one(self) -> Claimed:
        runs = await self.take()
        assert len(runs) == 1, f"one run was to be claimed, not {len(runs)}"
        return runs[0]

    # Settling

    def ended(
        self,
        run: Claimed,
        state: State = State.SUCCEEDED,
        *,
        result: bytes | None = b'"done"',
        failure: Failure | None = None,
        charged: bool = True,
        due_us: int | None = None,
        slots: Sequence[Gate] = (),
    ) -> Outcome:
        """An outcome of a run that this worker claimed now."""
        if state is State.FAILED and failure is None:
            failure = a_failure()
        due_us = run.due_us if due_us is None else due_us
        now_us = self.world.clock.now_us()
        return Outcome(
            run_id=run.id,
            fence=run.fence,
            worker=self.id,
            state=state,
            started_us=now_us - 2_000,
            finished_us=now_us,
            wall_us=2_000,
            cpu_us=700,
            charged=charged,
            result=result if state is State.SUCCEEDED else None,
            failure=failure,
            due_us=due_us,
            order_us=place_us(due_us, run.priority),
            slots=tuple(gate.key for gate in slots),
        )

    def retried(self, run: Claimed, pause_s: float = 10.0) -> Outcome:
        due_us = self.world.clock.now_us() + round(pause_s * 1_000_000)
        return self.ended(run, State.SCHEDULED, failure=a_failure(), due_us=due_us)

    def handed_back(self, run: Claimed) -> Outcome:
        return self.ended(run, State.READY, charged=False)

    async def settle(self, *outcomes: Outcome) -> list[bool]:
        return list(await self.store.settle(outcomes))

    async def succeed(self, *runs: Claimed, slots: Sequence[Gate] = ()) -> list[bool]:
        return await self.settle(*(self.ended(run, slots=slots) for run in runs))


def a_lane(task: str = "greet", *, queue: str = "default", version: str = "1", tenant: str = "acme") -> Lane:
    """The lane that tests use where they need no other."""
    return Lane(queue, task, version, tenant)


def a_key(
    text: str = "order-1", *, digest: str = "d1", retention_s: float = 3_600, retry_failed: bool = False
) -> SubmissionKey:
    """A submission key; the same digest means the same arguments."""
    return SubmissionKey(text, digest, round(retention_s * 1_000_000), retry_failed)


def a_failure(message: str = "no ink") -> Failure:
    """Why an attempt raised."""
    return Failure(FailureClass.ERROR, "builtins.ValueError", message, "Traceback …")


def place_us(due_us: int, priority: int) -> int:
    """A run's place in its lane: due time less priority times the ageing step."""
    return due_us - round(priority * bounds.AGEING_STEP_S * 1_000_000)


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds that another thread or process brings about."""
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + PATIENCE_S
    while not holds():
        assert clock.monotonic_s() < deadline_s, f"waited {PATIENCE_S:g} seconds in vain: {what}"
        await clock.sleep(0.01)


async def together(*work: Any) -> list[Any]:
    """Do things at the same moment; an exception is among the results."""
    return list(await asyncio.gather(*work, return_exceptions=True))
