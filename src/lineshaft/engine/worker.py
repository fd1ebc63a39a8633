"""A worker: one incarnation after another that fetches, executes and settles, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pydantic_core

from lineshaft.core import bounds
from lineshaft.core.errors import LineshaftError
from lineshaft.core.host import Host
from lineshaft.core.spawn import Background
from lineshaft.core.states import State
from lineshaft.core.threads import Threads
from lineshaft.engine.attempt import Attempt, Stop, slots_of
from lineshaft.engine.batching import Batching
from lineshaft.engine.context import Progress
from lineshaft.engine.declare import Declaration
from lineshaft.engine.execute import Execution, Processes
from lineshaft.engine.fairness import place_in_lane_us
from lineshaft.engine.fetch import Fetcher
from lineshaft.engine.heart import Heart
from lineshaft.engine.places import TRANSACTION, Concurrency, Places, place_of
from lineshaft.engine.registry import Registry
from lineshaft.engine.settle import Settler, ended
from lineshaft.engine.transact import Transacting
from lineshaft.engine.upkeep import Upkeep
from lineshaft.store.port import Store
from lineshaft.store.values import Claimed, Gate, Held, Lane, News, NewWorker, Outcome

_log = logging.getLogger("lineshaft")

SETTLE_S_MAX = 10.0
"""Seconds that a stopping worker waits for a store that cannot write; others take over after its lease."""
DEADLINE_LOOK_S = 0.05
"""How often timeouts are looked at; they are late by this much at most."""


class PoolOfProcesses(Processes, Protocol):
    """A process pool, and its life."""

    async def start(self) -> None: ...
    async def close(self, grace_s: float = ...) -> None: ...


class Worker:
    """Executes the runs of an app's tasks, in this process.

    `queues` restricts it; none means all. `told` hears of every run that ended here.
    """

    def __init__(
        self,
        *,
        store: Store,
        host: Host,
        registry: Registry,
        make_pool: Callable[[Concurrency], PoolOfProcesses],
        told: Callable[[Sequence[Outcome], bool], None],
        queues: Sequence[str] = (),
        concurrency: Concurrency | None = None,
        lease_s: float = bounds.LEASE_S,
        history_retention_s: float = bounds.HISTORY_RETENTION_S,
        grace_s: float = 10.0,
    ) -> None:
        self._store = store
        self._host = host
        self._clock = clock = host.clock
        self._registry = registry
        self._make_pool = make_pool
        self._told = told
        self._queues = frozenset(queues)
        self._concurrency = concurrency or Concurrency()
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._pool: PoolOfProcesses | None = None
        self._in_flight: dict[tuple[str, int], Attempt] = {}  # by run and fence: an old attempt may linger
        self._given_back: set[tuple[str, int]] = set()  # held without our knowledge, on their way back
        self._progress: dict[str, Progress] = {}
        self._background = Background()
        self._cancels = asyncio.Event()
        self._taken = asyncio.Event()
        self._draining = False
        self._hurried = False
        self._renewing = False
        self.id = 0
        self.done = 0
        """Runs that ended here."""
        self.failed = 0

        registry.build()
        self._room = Places(registry, self._concurrency)
        self._settler = Settler(store, clock, self._settled)
        self._threads = Threads("lineshaft-run")
        self._execution = Execution(
            store=store,
            clock=clock,
            chance=host.chance,
            settler=self._settler,
            threads=self._threads,
            processes=self._processes,
            report=self._report,
            thread_busy=self._thread_busy,
        )
        self._transacting = Transacting(store, self._execution, self._settler)
        self._batching = Batching(store, self._execution, self._settler)
        self._fetcher = Fetcher(
            store=store,
            clock=clock,
            registry=registry,
            queues=self._queues,
            free=self._room.free,
            place_of=self._place_of,
            idle=self._is_idle,
            may_claim=lambda: not self._renewing,
            take=self._take,
            give_back=self._give_back,
        )
        self._upkeep = Upkeep(store, clock, history_retention_s, lease_s, self._fetcher.wake)
        self._loop: asyncio.AbstractEventLoop | None = None

    # Life

    async def start(self) -> None:
        """Register, and begin to claim."""
        self._loop = asyncio.get_running_loop()
        self._heart = Heart(self._store, self._host, self._lease_s, self._lease_lost)
        # First of all what the dead left: a restarted program goes on where it was killed.
        await self._upkeep.rescue()
        await self._register()
        self._unsubscribe = self._store.on_news(self._on_news)
        self._background.keep_up(lambda: self._fetcher.serve(lambda: self.id), "lineshaft-fetch", self._clock)
        self._background.keep_up(self._upkeep.serve, "lineshaft-upkeep", self._clock)
        self._background.keep_up(self._watch_cancels, "lineshaft-cancels", self._clock)
        self._background.keep_up(self._write_progress, "lineshaft-progress", self._clock)
        self._background.keep_up(self._watch_deadlines, "lineshaft-deadlines", self._clock)

    async def stop(self) -> None:
        """Drain: claim nothing more, let what runs end within the grace, hand the rest back; nothing is lost."""
        if self._draining:
            return
        self._draining = True
        try:
            await self._drain()
        finally:
            # However the drain ends: without a heartbeat and a registration nothing is held by this process.
            self._heart.stop()
            # What a thread still executes, and cannot be told to leave, goes back to the queue here.
            await asyncio.shield(self._background.spawn(self._leave(), "lineshaft-leave"))
            self._threads.shutdown()

    async def _leave(self) -> None:
        """Stop what a cancelled drain has left, and hand everything back."""
        for attempt in list(self._in_flight.values()):
            attempt.interrupt(Stop.DRAINED)
        if self._pool is not None:
            await self._pool.close(0.0)
        await self._settler.finish(SETTLE_S_MAX if self._in_flight else 0.0)
        try:
            await self._store.unregister(self.id)
        except LineshaftError as error:
            _log.warning("Worker %d leaves when its lease ends, since the store says: %s", self.id, error)

    async def _drain(self) -> None:
        self._unsubscribe()
        await self._background.cancel()
        for attempt in list(self._in_flight.values()):
            if not attempt.begun:
                attempt.interrupt(Stop.DRAINED)
        self._batching.flush()
        await self._until_idle(self._grace_s, unless=lambda: self._hurried)
        for attempt in list(self._in_flight.values()):
            attempt.interrupt(Stop.DRAINED)
        if self._pool is not None:
            await self._pool.close(0.0 if self._in_flight else 1.0)
        await self._until_idle(bounds.WRITER_HOLD_S_MAX)
        await self._settler.finish(SETTLE_S_MAX)

    def hurry(self) -> None:
        """Give up the grace of a stop under way: attempts go back to the queue now."""
        self._hurried = True

    def wake(self, news: News) -> None:
        """Something was committed in this process. Safe to call from any thread."""
        self._soon(self._on_news, news)

    def submitted(self, due_us: int | None) -> None:
        """Runs were submitted in this process, due by then. Safe to call from any thread."""
        if due_us is not None and due_us > self._clock.now_us():
            self._soon(self._fetcher.due_at, due_us)
        else:
            self._soon(self._fetcher.wake)

    def _soon(self, call: Callable[..., None], *args: Any) -> None:
        """Call on the worker's loop, if that still runs."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call, *args)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    async def _register(self) -> None:
        self.id = await self._store.register(
            NewWorker(
                host=socket.gethostname(),
                pid=os.getpid(),
                started_us=self._clock.now_us(),
                queues=tuple(sorted(self._queues)),
                tasks=tuple((task.name, task.version) for task in self._registry.tasks()),
                lease_us=int(self._lease_s * 1_000_000),
                terms=self._registry.terms(),
            )
        )
        self._heart.start(self.id)

    async def _until_idle(self, at_most_s: float, unless: Callable[[], bool] = lambda: False) -> None:
        deadline_s = self._clock.monotonic_s() + at_most_s
        while self._in_flight and self._clock.monotonic_s() < deadline_s and not unless():
            await self._clock.sleep(0.01)

    # Runs

    def _is_idle(self) -> bool:
        """Whether it holds nothing. What an earlier incarnation left and cannot stop is not held any more."""
        return all(attempt.worker != self.id for attempt in self._in_flight.values())

    def _place_of(self, lane: Lane) -> str | None:
        task = self._registry.find(lane)
        return None if task is None else place_of(task)

    def _take(self, runs: Sequence[Claimed], worker: int) -> None:
        """Begin what was claimed; for an incarnation that is over it goes back when that is unregistered."""
        if worker != self.id or self._renewing:
            return
        self._taken.set()
        lanes: dict[Lane, tuple[Declaration, str, tuple[Gate, ...]]] = {}
        singly: list[Attempt] = []
        for run in runs:
            if run.lane not in lanes:
                lanes[run.lane] = self._common(run.lane)
            task, place, gates = lanes[run.lane]
            attempt = Attempt(run, task, place, gates, worker)
            self._in_flight[run.id, run.fence] = attempt
            self._room.add(place, 1)
            if task.batch is not None:
                self._batching.start(attempt)
            elif place == TRANSACTION:
                self._transacting.start(attempt)
            else:
                singly.append(attempt)
        self._execution.start(singly)

    def _common(self, lane: Lane) -> tuple[Declaration, str, tuple[Gate, ...]]:
        """What is the same for all runs of a lane: their task, where they execute, what they have passed."""
        task = self._registry.find(lane)
        assert task is not None  # the plan gives nothing of unknown lanes
        return task, place_of(task), self._registry.gates(lane)

    def _give_back(self, held: Sequence[Held]) -> None:
        """Return what is held and not in flight. What was settled since it was read is protected by its fence."""
        now_us = self._clock.now_us()
        for run in held:
            key = run.id, run.fence
            if key in self._in_flight or key in self._given_back:
                continue
            self._given_back.add(key)
            _log.warning("Run %s goes back: the reply to its claim was lost.", run.id)
            self._settler.put(
                Outcome(
                    run_id=run.id,
                    fence=run.fence,
                    worker=self.id,
                    state=State.READY,
                    started_us=now_us,
                    finished_us=now_us,
                    charged=False,
                    due_us=run.due_us,
                    order_us=place_in_lane_us(run.due_us, run.priority),
                    slots=slots_of(self._registry.gates(run.lane)),
                )
            )

    def _settled(self, outcomes: Sequence[Outcome], kept: Sequence[bool]) -> None:
        """Outcomes are durable: make room, tell who waits, look for more."""
        opened = False
        for outcome in outcomes:
            key = outcome.run_id, outcome.fence
            attempt = self._in_flight.pop(key, None)
            self._given_back.discard(key)
            if attempt is not None:
                self._room.add(attempt.place, -1)
                opened = opened or attempt.submitted
            if outcome.state is State.SCHEDULED:
                self._fetcher.due_at(outcome.due_us)
            opened = opened or bool(outcome.slots) or outcome.state is State.READY
        self._tell_ended(ended(outcomes, kept), all(kept))
        fetcher = self._fetcher
        if (
            opened
            or (fetcher.waits_for_idleness and self._is_idle())
            or (fetcher.backlog and self._room.is_roomy())
        ):
            fetcher.wake()

    def _tell_ended(self, outcomes: Sequence[Outcome], all_of_them: bool) -> None:
        self.done += len(outcomes)
        self.failed += sum(outcome.state is State.FAILED for outcome in outcomes)
        if outcomes or not all_of_them:
            self._told(outcomes, all_of_them)

    def _thread_busy(self, change: int) -> None:
        self._room.thread_busy(change)
        if change < 0 and self._fetcher.backlog:
            # It may have outlasted its attempt, whose settlement made no room.
            self._fetcher.wake()

    async def _processes(self) -> PoolOfProcesses:
        if self._pool is None:
            self._pool = self._make_pool(self._concurrency)
            await self._pool.start()
        return self._pool

    # Leases

    def _lease_lost(self) -> None:
        """Stop everything: others may execute it by now. Then go on as a new incarnation."""
        if self._draining or self._renewing:
            return
        self._renewing = True
        _log.error("Worker %d has lost its lease; %d attempts are stopped.", self.id, len(self._in_flight))
        for attempt in list(self._in_flight.values()):
            attempt.interrupt(Stop.LEASE_LOST)
        self._background.spawn(self._renew(), "lineshaft-renew")

    async def _renew(self) -> None:
        old = self.id
        try:
            await self._until_idle(bounds.WRITER_HOLD_S_MAX)
            while True:
                try:
                    if self.id == old:
                        await self._register()
                    for attempt in list(self._in_flight.values()):
                        if attempt.worker == old:
                            attempt.interrupt(Stop.LEASE_LOST)
                    await self._store.unregister(old)
                    break
                except LineshaftError as error:
                    _log.warning("Registering waits for the store: %s", error)
                    await self._clock.sleep(1.0)
        finally:
            self._renewing = False
        self._fetcher.wake()

    async def _watch_deadlines(self) -> None:
        """One look over all that is in flight, now and then, is cheaper than a timer for each."""
        while True:
            if not self._in_flight:
                self._taken.clear()
                await self._taken.wait()
            await self._clock.sleep(DEADLINE_LOOK_S)
            now_s = self._clock.monotonic_s()
            for attempt in list(self._in_flight.values()):
                if attempt.deadline_s < now_s:
                    attempt.expire()

    # News, cancelling, progress

    def _on_news(self, news: News) -> None:
        if news & News.WORK:
            self._fetcher.wake()
        if news & News.CANCEL:
            self._cancels.set()

    async def _watch_cancels(self) -> None:
        while True:
            await self._cancels.wait()
            self._cancels.clear()
            if not self._in_flight:
                continue
            try:
                wanted = set(await self._store.cancel_requests(self.id))
            except LineshaftError as error:
                _log.warning("Requests to cancel cannot be read: %s", error)
                wanted = set()
            for attempt in [held for held in self._in_flight.values() if held.run.id in wanted]:
                attempt.interrupt(Stop.CANCELLED)
            await self._clock.sleep(0.2)

    def _report(self, run_id: str, progress: Progress) -> None:
        """Keep the newest progress; called from any thread."""
        self._progress[run_id] = progress

    async def _write_progress(self) -> None:
        while True:
            await self._clock.sleep(0.25)
            if self._progress:
                progress, self._progress = self._progress, {}
                try:
                    await self._store.report(
                        [
                            (run_id, pydantic_core.to_json([entry.done, entry.total, entry.message]))
                            for run_id, entry in progress.items()
                        ]
                    )
                except LineshaftError as error:
                    _log.warning("Progress cannot be written: %s", error)
