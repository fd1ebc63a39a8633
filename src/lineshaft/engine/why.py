"""Why a run is not finished: one reason, found in the facts of the store alone.

What the code of live workers declares (limits, attempts, tasks, queues) they publish when they register, so this
needs no app. The order of the questions is the order in which a run meets its obstacles: is there a worker at
all, one that knows the task, one that serves the queue; must it run alone; do the limits let it through; and who
is before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from lineshaft.core.clock import Clock
from lineshaft.core.duration import brief
from lineshaft.core.errors import RunNotFound
from lineshaft.core.states import FINAL, FailureClass, State
from lineshaft.store.values import (
    Failure,
    Lane,
    LimitTerms,
    Pace,
    RunView,
    SlotHolder,
    Slots,
    WorkerView,
)

AHEAD_MAX = 10_000
"""Runs ahead of one are counted up to here."""
_ERROR_CHARS_MAX = 300


class Reason(StrEnum):
    """What a run waits for, or how it ended. Stable, for programs."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    OUTCOME_UNKNOWN = "outcome_unknown"
    RUNNING = "running"
    CANCEL_REQUESTED = "cancel_requested"
    WORKER_DIED = "worker_died"
    DUE_TIME = "due_time"
    RETRY = "retry"
    CRASH_PAUSE = "crash_pause"
    NO_WORKER = "no_worker"
    NO_WORKER_FOR_TASK = "no_worker_for_task"
    NO_WORKER_FOR_QUEUE = "no_worker_for_queue"
    SUSPECT = "suspect"
    LIMIT = "limit"
    RATE = "rate"
    BEHIND = "behind"
    NEXT = "next"
    PARKED_UNKNOWN_TASK = "parked_unknown_task"
    PARKED_ARGUMENTS_REFUSED = "parked_arguments_refused"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPENSATING = "compensating"


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that holds the run, or slots of the limit it waits for."""

    worker: int
    host: str
    pid: int
    held: int

    def __str__(self) -> str:
        return f"worker {self.worker} (process {self.pid} on {self.host})"


@dataclass(frozen=True, slots=True)
class Why:
    """The one thing that a run waits for now."""

    run_id: str
    state: State
    reason: Reason
    sentence: str
    until_us: int | None = None
    """When that comes, where it is known; wall time in microseconds."""
    limit: str | None = None
    """The key of the limit or rate."""
    holders: tuple[Holder, ...] = ()
    ahead: int | None = None
    """Ready runs before it in its lane."""


class Facts(Protocol):
    """What is asked of the store; see `store/port.py`."""

    async def view(self, run_ids: Sequence[str]) -> Sequence[RunView | None]: ...
    async def workers(self) -> Sequence[WorkerView]: ...
    async def slots(self) -> Sequence[SlotHolder]: ...
    async def pace_open_us(self, pace: Pace) -> int: ...
    async def ahead(self, run_id: str, at_most: int) -> int: ...
    async def retried_by(self, run_id: str) -> str | None: ...


async def why(store: Facts, clock: Clock, run_id: str) -> Why:
    """The reason why a run is not finished, or how it ended. Raises `RunNotFound`."""
    run = (await store.view([run_id]))[0]
    if run is None:
        raise RunNotFound(
            f"There is no run {run_id}.", hint="It may have been pruned; look at `lineshaft runs list`."
        )
    return await _Question(store, clock.now_us(), run).answer()


@dataclass(frozen=True, slots=True)
class _Question:
    """One run, and the moment at which it is asked about."""

    store: Facts
    now_us: int
    run: RunView

    async def answer(self) -> Why:
        run = self.run
        if run.state in FINAL:
            return self._because(Reason(run.state), _ending(run, await self.store.retried_by(run.id)))
        workers = await self.store.workers()
        match run.state:
            case State.RUNNING:
                return self._running(workers)
            case State.PARKED:
                return self._parked(workers)
            case State.SCHEDULED if run.due_us > self.now_us:
                return self._scheduled(workers)
            case State.SCHEDULED | State.READY:
                return await self._ready([worker for worker in workers if worker.alive])
        return self._because(Reason(run.state), _LATER[run.state])

    # States

    def _running(self, workers: Sequence[WorkerView]) -> Why:
        run = self.run
        attempt = run.attempts + 1
        worker = next((each for each in workers if each.id == run.worker), None)
        if worker is None or not worker.alive:
            rest = "A live worker will notice within seconds and return it."
            if not any(each.alive for each in workers):
                rest = "No worker is alive to return it; start one: lineshaft worker MODULE:APP."
            who = f"worker {run.worker}" if worker is None else str(_holder(worker))
            return self._because(
                Reason.WORKER_DIED, f"{_capital(who)}, which executed attempt {attempt}, has died. {rest}"
            )
        holder = _holder(worker)
        since = "" if run.claimed_us is None else f" since {moment(run.claimed_us)}, for {self._age(run)}"
        doing = f"{_capital(str(holder))} executes attempt {attempt}{self._of_attempts(workers)}{since}."
        if run.cancel_requested:
            stop = " It was asked to cancel; a function in a thread stops when it next calls heartbeat()."
            return self._because(Reason.CANCEL_REQUESTED, doing + stop, holders=(holder,))
        return self._because(Reason.RUNNING, doing, holders=(holder,))

    def _parked(self, workers: Sequence[WorkerView]) -> Why:
        run = self.run
        knowing = [worker for worker in workers if worker.alive and _knows(worker, run.lane)]
        refused = run.failure is not None and run.failure.kind is FailureClass.RESULT
        if refused and (knowing or run.failure is None or "Arguments" in run.failure.type):
            return self._because(
                Reason.PARKED_ARGUMENTS_REFUSED,
                "It is parked: the present code refuses its arguments. It comes back by itself when a worker"
                f" starts whose code accepts them. The refusal: {_error(run.failure)}",
            )
        return self._because(
            Reason.PARKED_UNKNOWN_TASK,
            f"It is parked: no live worker knows {_task(run.lane)}{_other_versions(workers, run.lane)}. It comes"
            " back by itself when one starts.",
        )

    def _scheduled(self, workers: Sequence[WorkerView]) -> Why:
        run = self.run
        when = f"{moment(run.due_us)}, in {brief((run.due_us - self.now_us) / 1e6)}"
        if run.suspect is not None:
            return self._because(
                Reason.CRASH_PAUSE,
                f"It was executed alone when its worker died, {_times(run.crashes)} by now; it is tried again at"
                f" {when}, with nothing beside it.",
                until_us=run.due_us,
            )
        if run.attempts and run.failure is not None:
            return self._because(
                Reason.RETRY,
                f"It waits for attempt {run.attempts + 1}{self._of_attempts(workers)} at {when}. Attempt"
                f" {run.attempts} failed: {_error(run.failure)}",
                until_us=run.due_us,
            )
        return self._because(Reason.DUE_TIME, f"It waits for its due time, {when}.", until_us=run.due_us)

    async def _ready(self, workers: Sequence[WorkerView]) -> Why:
        lane = self.run.lane
        if not workers:
            return self._because(
                Reason.NO_WORKER,
                "It waits for a worker, and none is alive. Start one: lineshaft worker MODULE:APP.",
            )
        knowing = [worker for worker in workers if _knows(worker, lane)]
        if not knowing:
            return self._because(
                Reason.NO_WORKER_FOR_TASK,
                f"It waits for a worker that knows {_task(lane)}; none of the {_workers(workers)} does"
                f"{_other_versions(workers, lane)}. Deploy code that declares it.",
            )
        serving = [worker for worker in knowing if not worker.queues or lane.queue in worker.queues]
        if not serving:
            served = sorted({queue for worker in knowing for queue in worker.queues})
            return self._because(
                Reason.NO_WORKER_FOR_QUEUE,
                f"It waits for a worker that serves queue {lane.queue!r}; those that know the task serve only"
                f" {', '.join(map(repr, served))}. Start one: lineshaft worker MODULE:APP --queue {lane.queue}.",
            )
        if self.run.suspect is not None:
            return self._because(
                Reason.SUSPECT,
                "Its worker died while it ran beside others, and nobody knows which of them killed it; so it"
                " waits until a worker has nothing else in flight, and runs alone or with fewer neighbours.",
            )
        return await self._closed_gate(serving) or await self._in_line(serving)

    # What may hold a ready run back

    async def _closed_gate(self, serving: Sequence[WorkerView]) -> Why | None:
        """The limit that keeps every worker from taking it; None if some worker may."""
        lane = self.run.lane
        slots: Sequence[SlotHolder] | None = None
        first: Why | None = None
        for worker in serving:
            closed: Why | None = None
            for limit in worker.terms.limits:
                if not limit.applies_to(lane) or closed is not None:
                    continue
                gate = limit.gate(lane.tenant)
                if isinstance(gate, Slots):
                    slots = await self.store.slots() if slots is None else slots
                    closed = await self._full(limit, gate, slots)
                else:
                    closed = await self._paced(limit, gate)
            if closed is None:
                return None
            first = first or closed
        return first

    async def _full(self, limit: LimitTerms, gate: Slots, slots: Sequence[SlotHolder]) -> Why | None:
        workers = {worker.id: worker for worker in await self.store.workers()}
        holders = tuple(
            _holder(workers[slot.worker], slot.held)
            for slot in slots
            if slot.key == gate.key and slot.worker in workers
        )
        if sum(holder.held for holder in holders) < gate.count:
            return None
        who = ", ".join(f"{holder} holds {holder.held}" for holder in holders)
        return self._because(
            Reason.LIMIT,
            f"It waits for the limit of {gate.count} at once of {self._scope(limit)}: {who}.",
            limit=gate.key,
            holders=holders,
        )

    async def _paced(self, limit: LimitTerms, gate: Pace) -> Why | None:
        open_us = await self.store.pace_open_us(gate)
        if open_us <= self.now_us:
            return None
        return self._because(
            Reason.RATE,
            f"It waits for the rate of {gate.count} in {brief(gate.period_us / 1e6)} of {self._scope(limit)},"
            f" which lets the next start through at {moment(open_us)},"
            f" in {brief((open_us - self.now_us) / 1e6)}.",
            until_us=open_us,
            limit=gate.key,
        )

    async def _in_line(self, serving: Sequence[WorkerView]) -> Why:
        ahead = await self.store.ahead(self.run.id, AHEAD_MAX)
        holders = tuple(_holder(worker, worker.held) for worker in serving)
        busy = sum(worker.held for worker in serving)
        runs = "run" if busy == 1 else "runs"
        server = "the worker that can execute it has"
        if len(serving) > 1:
            server = f"the {len(serving)} workers that can execute it have"
        serves = f"{server} {busy:,} {runs} in flight"
        if ahead:
            count = f"at least {ahead:,}" if ahead >= AHEAD_MAX else f"{ahead:,}"
            are = "run is" if ahead == 1 else "runs are"
            sentence = f"It waits its turn: {count} {are} before it in its lane; {serves}."
            return self._because(Reason.BEHIND, sentence, holders=holders, ahead=ahead)
        return self._because(
            Reason.NEXT,
            f"It is the next of its lane and nothing holds it back: it starts when there is room; {serves}.",
            holders=holders,
            ahead=0,
        )

    # Wording

    def _scope(self, limit: LimitTerms) -> str:
        scope = f"queue {limit.queue!r}" if limit.task is None else f"task {limit.task!r}"
        return f"{scope} for tenant {self.run.lane.tenant!r}" if limit.per_tenant else scope

    def _age(self, run: RunView) -> str:
        assert run.claimed_us is not None
        return brief(max(0, self.now_us - run.claimed_us) / 1e6)

    def _of_attempts(self, workers: Iterable[WorkerView]) -> str:
        lane = self.run.lane
        for worker in workers:
            for task, version, attempts in worker.terms.attempts:
                if worker.alive and (task, version) == (lane.task, lane.version):
                    return f" of {attempts}"
        return ""

    def _because(
        self,
        reason: Reason,
        sentence: str,
        *,
        until_us: int | None = None,
        limit: str | None = None,
        holders: tuple[Holder, ...] = (),
        ahead: int | None = None,
    ) -> Why:
        return Why(self.run.id, self.run.state, reason, sentence, until_us, limit, holders, ahead)


def moment(us: int) -> str:
    """A wall time as people read it, to the second, in UTC."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_LATER = {
    State.WAITING: "It waits durably, for a timer, a message or a child.",
    State.PAUSED: "It is paused, until somebody resumes it.",
    State.COMPENSATING: "It failed, and what it had done is being undone.",
}


def _ending(run: RunView, retried_by: str | None) -> str:
    assert run.finished_us is not None
    when = moment(run.finished_us)
    attempts = "1 attempt" if run.attempts == 1 else f"{run.attempts} attempts"
    again = f" Run {retried_by} retries it." if retried_by else ""
    if run.state is State.SUCCEEDED:
        took = "" if run.wall_us is None else f", in {brief(run.wall_us / 1e6)}"
        return f"It succeeded at {when} after {attempts}{took}."
    if run.state is State.CANCELLED:
        return f"It was cancelled at {when} after {attempts}.{again}"
    if run.state is State.OUTCOME_UNKNOWN:
        return (
            f"Its worker died at {when} or before, after it had started; since it is declared at most once, it was not"
            f" repeated, and nobody knows whether it happened.{again}"
        )
    return f"It failed at {when} after {attempts}: {_error(run.failure)}{again}"


def _error(failure: Failure | None) -> str:
    if failure is None:
        return "no error was recorded."
    lines = failure.message.strip().splitlines()
    message = lines[0] if lines else ""
    if len(message) > _ERROR_CHARS_MAX:
        message = message[:_ERROR_CHARS_MAX] + " …"
    text = f"{failure.type.removeprefix('builtins.')}: {message}".rstrip(": ")
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


def _holder(worker: WorkerView, held: int = 1) -> Holder:
    return Holder(worker.id, worker.host, worker.pid, held)


def _knows(worker: WorkerView, lane: Lane) -> bool:
    return (lane.task, lane.version) in worker.tasks


def _task(lane: Lane) -> str:
    return f"task {lane.task!r}" if lane.version == "1" else f"version {lane.version!r} of task {lane.task!r}"


def _other_versions(workers: Iterable[WorkerView], lane: Lane) -> str:
    versions = sorted(
        {version for worker in workers if worker.alive for task, version in worker.tasks if task == lane.task}
    )
    versions = [version for version in versions if version != lane.version]
    return f" (of that task they know version {', '.join(versions)})" if versions else ""


def _workers(workers: Sequence[WorkerView]) -> str:
    return "1 live worker" if len(workers) == 1 else f"{len(workers)} live workers"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
