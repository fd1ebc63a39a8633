"""What a store can do, in narrow protocols; each consumer asks only for those that it uses.

Every method that writes is atomic, and returns after its commit is durable. Times are wall times in
microseconds given by the caller, except where leases are concerned: there the store's own clock decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from lineshaft.core.states import State
from lineshaft.store.values import (
    Accepted,
    AttemptView,
    ClaimReply,
    ClaimRequest,
    Held,
    NewRun,
    News,
    NewWorker,
    Outcome,
    Pace,
    Pruned,
    QueueView,
    Rescued,
    RunFilter,
    RunView,
    SlotHolder,
    StoreFacts,
    WorkerView,
)


class Submissions(Protocol):
    """Accepting runs."""

    async def submit(
        self, runs: Sequence[NewRun], queued: Callable[[], None] | None = None
    ) -> Sequence[Accepted]:
        """Insert runs; for one whose key is held, say who holds it. Raises `KeyReused` for all of them.

        `queued` is called once claims of this process that are asked for from then on will find the runs, if they
        are accepted: so one commit can carry the submission and its claim.
        """

    def submit_with(self, runs: Sequence[NewRun], tx: Any) -> Sequence[Accepted]:
        """Insert runs through the caller's open transaction, in the caller's thread."""

    async def submit_with_async(self, runs: Sequence[NewRun], tx: Any) -> Sequence[Accepted]:
        """The same over a SQLAlchemy `AsyncSession` or `AsyncConnection`."""


class Claims(Protocol):
    """Taking runs, and returning what became of them."""

    async def claim(self, request: ClaimRequest) -> ClaimReply:
        """Promote what is due and take what the plan allows, raising the fence of each."""

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        """Write outcomes. False for one whose fence was lost: nothing of it is written."""

    async def mark_started(self, run_id: str, fence: int, worker: int) -> bool:
        """Record that at-most-once work starts now. False if the fence was lost."""

    async def report(self, progress: Sequence[tuple[str, bytes]]) -> None:
        """Keep the newest progress of runs."""


class Leases(Protocol):
    """Workers, their leases, and what is done for the dead ones."""

    async def register(self, worker: NewWorker) -> int:
        """A new incarnation, with its lease."""

    def beat(self, worker: int, lease_us: int) -> bool:
        """Extend the lease; blocking, called from the heartbeat's own thread. False: it is lost."""

    async def unregister(self, worker: int) -> None:
        """Leave in order; whatever it still held is handed back uncharged."""

    async def rescue(self, now_us: int) -> Rescued:
        """Return the runs of dead workers: suspects in halving groups, the guilty charged."""

    async def park(self, now_us: int) -> int:
        """Park ready runs that no live worker can execute, and return parked ones that some can."""

    async def held(self, worker: int) -> Sequence[Held]:
        """What this worker holds, for one that lost the reply to a claim."""

    async def cancel_requests(self, worker: int) -> Sequence[str]:
        """Ids of runs held by this worker that somebody wants cancelled."""


class Reads(Protocol):
    """Looking, without writing."""

    async def view(self, run_ids: Sequence[str]) -> Sequence[RunView | None]:
        """Runs as they stand."""

    async def finished(self, run_ids: Sequence[str]) -> Sequence[RunView]:
        """Those of the runs that have finished."""

    async def listing(self, wanted: RunFilter) -> Sequence[RunView]:
        """Runs without arguments and results, newest first."""

    async def attempts(self, run_id: str) -> Sequence[AttemptView]:
        """Attempts before the present or last one."""

    async def progress(self, run_id: str) -> bytes | None:
        """The newest progress of a run that has not finished."""

    async def ahead(self, run_id: str, at_most: int) -> int:
        """How many ready runs of its lane come before a ready run, counted up to a bound."""

    async def retried_by(self, run_id: str) -> str | None:
        """The run that retries this one, if any does."""

    async def queues(self) -> Sequence[QueueView]:
        """Every queue that has unfinished runs."""

    async def workers(self) -> Sequence[WorkerView]:
        """Workers of the registry, dead ones not yet swept included."""

    async def slots(self) -> Sequence[SlotHolder]:
        """Who holds slots of concurrency limits."""

    async def pace_open_us(self, pace: Pace) -> int:
        """When the rate under this key allows the next start."""

    async def counts(self) -> dict[State, int]:
        """Unfinished runs by state, finished ones by state."""

    async def facts(self) -> StoreFacts:
        """Size, version and settings."""


class Operations(Protocol):
    """What operators and housekeeping do."""

    async def cancel(self, run_id: str, now_us: int) -> State:
        """Cancel a run that does not run, or ask for it; the state it is in then. Raises `RunNotFound`."""

    async def retry(self, run: NewRun) -> None:
        """Insert a run that retries the finished one named by its `retry_of`, and takes over its key.

        Raises `RunNotFound`, and `InvalidTransition` for one that has not finished, succeeded, was
        retried before, or whose key another run holds by now.
        """

    async def prune(self, finished_before_us: int, now_us: int) -> Pruned:
        """Delete one bounded batch of history and keys beyond their retention."""

    async def backup(self, target: str, progress: Callable[[int, int], None]) -> None:
        """Copy the whole store, consistent as of one moment, while it is in use."""


class Transaction(Protocol):
    """A transaction on the store, lent to user code for a bounded time."""

    def submit(self, runs: Sequence[NewRun]) -> Sequence[Accepted]:
        """Insert runs as part of it."""

    def savepoint(self) -> None:
        """Start the part that one run writes."""

    def release(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        """End the part, with the outcomes that commit together with it. False: the fence was lost."""

    def rollback_savepoint(self) -> None:
        """Forget the part."""

    def commit(self) -> None:
        """Commit all; raises and keeps nothing if it cannot."""

    async def off_loop(self, use: Callable[..., Any], *args: Any) -> Any:
        """Call something that uses this transaction in a thread kept for that.

        It is seen through to its end even if the caller is cancelled.
        """

    def session(self) -> Any:
        """A SQLAlchemy session for synchronous code on this transaction."""

    def async_session(self) -> Any:
        """A SQLAlchemy session for asynchronous code on this transaction."""

    def finish(self, session: Any) -> None:
        """Write what the session holds back; raises if it can no longer be kept."""

    async def finish_async(self, session: Any) -> None:
        """The same for a session of asynchronous code."""


class Transactions(Protocol):
    """Lending the writer to user code."""

    def transaction(self, hold_s: float = ...) -> AbstractAsyncContextManager[Transaction]:
        """Borrow the writer for so long at most; rolled back unless committed when the block ends."""

    def connect(self) -> Any:
        """A raw connection of the caller's own."""

    def engine(self) -> Any:
        """A SQLAlchemy engine of the caller's own."""


class Wakes(Protocol):
    """Hearing of commits that others made."""

    def on_news(self, listener: Callable[[News], None]) -> Callable[[], None]:
        """Call `listener` on the running event loop after commits of other processes.

        Coalesced, promptly where the platform can, at most a second late otherwise. What is returned
        ends it.
        """


class Store(Submissions, Claims, Leases, Reads, Operations, Transactions, Wakes, Protocol):
    """All of it, as the runtime holds it."""

    async def close(self) -> None:
        """Finish what is being written and close every connection."""
