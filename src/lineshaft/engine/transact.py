"""Runs inside a transaction of the store: body, fence check and outcome commit as one.

Synchronous bodies run in a thread, several in one commit, each in a part of its own (a savepoint) that is
rolled back alone when it raises. When the commit itself is lost, the group is executed again one by one,
uncharged. Asynchronous bodies run one at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from lineshaft.core import bounds
from lineshaft.core.clock import thread_cpu_ns
from lineshaft.core.errors import InvalidArguments, LineshaftError, TransactionTooLong
from lineshaft.core.states import FailureClass, State
from lineshaft.engine.attempt import Attempt, metered
from lineshaft.engine.execute import PAUSE_S, Execution
from lineshaft.engine.outcomes import raised
from lineshaft.engine.settle import Settler
from lineshaft.engine.transactions import AsyncTransaction, Transaction
from lineshaft.store.port import Transaction as StoreTransaction
from lineshaft.store.port import Transactions
from lineshaft.store.values import Outcome

GROUP_S = 0.2
"""Seconds after which a group takes in no further body: others wait for the writer."""


class Transacting:
    """Executes the transactional runs of one worker, one transaction after another."""

    def __init__(self, store: Transactions, execution: Execution, settler: Settler) -> None:
        self._store = store
        self._execution = execution
        self._settler = settler
        self._waiting: deque[Attempt] = deque()
        self._serving = False

    def start(self, attempt: Attempt) -> None:
        self._waiting.append(attempt)
        if not self._serving:
            self._serving = True
            self._execution.background.spawn(self._serve(), "lineshaft-transactions")

    async def _serve(self) -> None:
        try:
            while self._waiting:
                first = self._waiting.popleft()
                if first.task.is_async:
                    await self._alone(first)
                    continue
                group = [first]
                while (
                    self._waiting
                    and len(group) < bounds.TRANSACTION_GROUP_MAX
                    and _may_share(first, self._waiting[0])
                ):
                    group.append(self._waiting.popleft())
                await self._group(group)
        finally:
            self._serving = False

    # Synchronous bodies, in groups

    async def _group(self, attempts: list[Attempt]) -> None:
        """Execute a group; if its commit is lost, each by itself."""
        attempts = [attempt for attempt in attempts if not self._execution.ended_before(attempt)]
        if not attempts:
            return
        for attempt in attempts:
            attempt.begun = True
        try:
            async with self._store.transaction(attempts[0].task.timeout_s) as lent:
                committed, others, left = await lent.off_loop(self._bodies, lent, attempts)
        except Exception as error:
            if len(attempts) == 1:
                self._settler.put(lost(self._execution, attempts[0], error))
                return
            for attempt in attempts:
                attempt.begun = False
                await self._group([attempt])
            return
        for attempt in reversed(left):
            attempt.begun = False
            self._waiting.appendleft(attempt)
        self._settler.committed(committed)
        for outcome in others:
            self._settler.put(outcome)

    def _bodies(
        self, lent: StoreTransaction, attempts: Sequence[Attempt]
    ) -> tuple[list[Outcome], list[Outcome], Sequence[Attempt]]:
        """In a thread: bodies in parts of their own, then the commit. What commits, what is settled apart, and
        what there was no more time for.
        """
        committed: list[Outcome] = []
        others: list[Outcome] = []
        until_s = self._execution.clock.monotonic_s() + GROUP_S
        count = 0
        while count < len(attempts) and (count == 0 or self._execution.clock.monotonic_s() < until_s):
            outcome, kept = self._part(lent, attempts[count])
            (committed if kept else others).append(outcome)
            count += 1
        lent.commit()
        return committed, others, attempts[count:]

    def _part(self, lent: StoreTransaction, attempt: Attempt) -> tuple[Outcome, bool]:
        """One body in its part; whether its outcome is in the transaction."""
        execution = self._execution
        attempt.started_us = execution.clock.now_us()
        try:
            values = attempt.task.arguments.decode(attempt.run.args)
        except InvalidArguments as error:
            return execution.parked(attempt, error), False
        lent.savepoint()
        tx = Transaction(lent)
        try:
            value = self._measured(attempt, values, tx)
        except BaseException as error:
            lent.rollback_savepoint()
            outcome = execution.stopped(attempt) if attempt.stop else execution.failed(attempt, raised(error))
            return outcome, False
        finally:
            tx.close()
        attempt.submitted = tx.submitted
        outcome = execution.returned(attempt, value)
        if outcome.state is not State.SUCCEEDED:
            lent.rollback_savepoint()
            return outcome, False
        if lent.release([outcome])[0]:
            return outcome, True
        # The fence was lost: somebody else holds the run now, and the part is rolled back.
        return execution.handed_back(attempt), False

    def _measured(self, attempt: Attempt, values: dict[str, Any], tx: Transaction) -> Any:
        began_ns = thread_cpu_ns()
        try:
            args, kwargs = self._injected(attempt, values, tx)
            value = attempt.task.function(*args, **kwargs)
            tx.finish()
            return value
        finally:
            attempt.cpu_ns += thread_cpu_ns() - began_ns

    # Asynchronous bodies, one at a time

    async def _alone(self, attempt: Attempt) -> None:
        if not self._execution.ended_before(attempt):
            attempt.running = self._execution.background.spawn(self._commit(attempt), attempt.run.id)
            await asyncio.wait([attempt.running])

    async def _commit(self, attempt: Attempt) -> None:
        execution = self._execution
        attempt.started_us = execution.clock.now_us()
        if execution.ended_before(attempt):
            return
        try:
            values = attempt.task.arguments.decode(attempt.run.args)
        except InvalidArguments as error:
            self._settler.put(execution.parked(attempt, error))
            return
        try:
            async with self._store.transaction() as lent:
                await lent.off_loop(lent.savepoint)
                outcome = await self._body(attempt, values, lent)
                if outcome.state is State.SUCCEEDED:
                    if await lent.off_loop(release_and_commit, lent, [outcome]):
                        self._settler.committed([outcome])
                        return
                    outcome = execution.handed_back(attempt)
        except asyncio.CancelledError as error:
            outcome = execution.stopped(attempt) if attempt.stop else execution.failed(attempt, raised(error))
        except Exception as error:
            outcome = lost(execution, attempt, error)
        self._settler.put(outcome)

    async def _body(self, attempt: Attempt, values: dict[str, Any], lent: StoreTransaction) -> Outcome:
        execution = self._execution
        tx = AsyncTransaction(lent)
        args, kwargs = self._injected(attempt, values, tx)
        attempt.begun = True
        # Beyond the first of the two nothing can come of it, and other transactions wait.
        limit = asyncio.timeout(min(bounds.WRITER_HOLD_S_MAX, attempt.task.timeout_s))
        try:
            async with limit:
                value = await metered(attempt, attempt.task.function(*args, **kwargs))
                await tx.finish()
        except TimeoutError as error:
            if not limit.expired():
                return execution.failed(attempt, raised(error))
            if attempt.task.timeout_s <= bounds.WRITER_HOLD_S_MAX:
                return execution.timed_out(attempt)
            return execution.failed(attempt, raised(too_long(), FailureClass.TIMEOUT))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return execution.failed(attempt, raised(error))
        finally:
            await tx.close()
        attempt.submitted = tx.submitted
        return execution.returned(attempt, value)

    def _injected(
        self, attempt: Attempt, values: dict[str, Any], tx: Transaction | AsyncTransaction
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        signature = attempt.task.signature
        assert signature.transaction is not None
        args, kwargs = attempt.task.arguments.call_arguments(values)
        kwargs = {**kwargs, signature.transaction: tx}
        if signature.context is not None:
            kwargs[signature.context] = self._execution.context(attempt)
        return args, kwargs


def _may_share(one: Attempt, other: Attempt) -> bool:
    """Whether two runs may share a commit: one with a timeout shorter than any loan needs its own."""
    return (
        not other.task.is_async and min(one.task.timeout_s, other.task.timeout_s) >= bounds.WRITER_HOLD_S_MAX
    )


def release_and_commit(lent: StoreTransaction, outcomes: Sequence[Outcome]) -> bool:
    """In a thread: settle and commit; false, and nothing kept, if any fence was lost."""
    if not all(lent.release(outcomes)):
        return False
    lent.commit()
    return True


def lost(execution: Execution, attempt: Attempt, error: Exception) -> Outcome:
    """The transaction was lost: not the body's doing, unless it held the writer for too long or the store says
    that the same would happen again.
    """
    if isinstance(error, TransactionTooLong):
        return execution.failed(attempt, raised(error, FailureClass.TIMEOUT))
    if isinstance(error, LineshaftError) and not error.retryable:
        return execution.failed(attempt, raised(error))
    return execution.handed_back(attempt, PAUSE_S)


def too_long() -> TransactionTooLong:
    """The error of a body that does not end."""
    return TransactionTooLong(
        f"A transaction held the writer for more than {bounds.WRITER_HOLD_S_MAX:g} seconds and was rolled back.",
        hint="Do slow work (remote calls, long computation) before it, in a step or task of its own.",
    )
