"""Runs handed to a function many at a time.

Runs of one batch task gather until the batch is full or the oldest has waited `batch_wait`. The function gets
their arguments as one list and returns a list of results, with `Failed` for those that failed. A batch with
a transaction commits what it wrote together with all its outcomes; where it cannot, it is split, uncharged,
until the culprit stands alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lineshaft.core import bounds
from lineshaft.core.errors import InvalidArguments, NotEncodable, TransactionTooLong
from lineshaft.core.states import FailureClass
from lineshaft.engine.attempt import Attempt, Stop, measured, metered
from lineshaft.engine.batches import Failed
from lineshaft.engine.declare import Declaration
from lineshaft.engine.execute import Execution
from lineshaft.engine.outcomes import Raised, raised
from lineshaft.engine.settle import Settler
from lineshaft.engine.transact import lost, release_and_commit, too_long
from lineshaft.engine.transactions import AsyncTransaction, Transaction
from lineshaft.store.port import Transaction as StoreTransaction
from lineshaft.store.port import Transactions
from lineshaft.store.values import Outcome


class Batching:
    """Gathers and executes the batches of one worker."""

    def __init__(self, store: Transactions, execution: Execution, settler: Settler) -> None:
        self._store = store
        self._execution = execution
        self._settler = settler
        self._gathered: dict[Declaration, list[Attempt]] = {}
        self._timers: dict[Declaration, asyncio.TimerHandle] = {}

    def start(self, attempt: Attempt) -> None:
        task = attempt.task
        assert task.batch is not None
        gathered = self._gathered.setdefault(task, [])
        gathered.append(attempt)
        if len(gathered) >= task.batch:
            self._hand_over(task)
        elif len(gathered) == 1:
            loop = asyncio.get_running_loop()
            self._timers[task] = loop.call_later(task.batch_wait_s, self._hand_over, task)

    def flush(self) -> None:
        """Hand over what has gathered, full or not."""
        for task in list(self._gathered):
            self._hand_over(task)

    def _hand_over(self, task: Declaration) -> None:
        timer = self._timers.pop(task, None)
        if timer is not None:
            timer.cancel()
        attempts = self._gathered.pop(task, [])
        if attempts:
            running = self._execution.background.spawn(self._batch(attempts), f"batch of {task.name}")
            for attempt in attempts:
                attempt.together, attempt.running = attempts, running

    async def _batch(self, attempts: list[Attempt]) -> None:
        try:
            await self._execute(attempts)
        except asyncio.CancelledError:
            # All of them were stopped. Of those that had an outcome already, this one comes too late.
            for attempt in attempts:
                attempt.stop = attempt.stop or Stop.DRAINED
                self._settler.put(self._execution.stopped(attempt))

    async def _execute(self, attempts: list[Attempt]) -> None:
        """Execute a batch, without those that were stopped or that the present code refuses."""
        items: list[Any] = []
        accepted: list[Attempt] = []
        for attempt in attempts:
            if self._execution.ended_before(attempt):
                continue
            try:
                values = attempt.task.arguments.decode(attempt.run.args)
            except InvalidArguments as error:
                self._settler.put(self._execution.parked(attempt, error))
                continue
            accepted.append(attempt)
            items += values.values()
        if not accepted:
            return
        now_us = self._execution.clock.now_us()
        for attempt in accepted:
            attempt.started_us, attempt.cpu_ns = now_us, 0
        if accepted[0].task.signature.transaction is None:
            await self._plain(accepted, items)
        else:
            await self._transaction(accepted, items)

    async def _plain(self, attempts: list[Attempt], items: list[Any]) -> None:
        try:
            results = await self._call(attempts, items, {})
        except _Raised as error:
            await self._all_failed(attempts, error.cause)
            return
        outcomes, _ = self._outcomes(attempts, results)
        for outcome in outcomes:
            self._settler.put(outcome)

    async def _transaction(self, attempts: list[Attempt], items: list[Any]) -> None:
        try:
            async with self._store.transaction() as lent:
                outcomes, kept = await self._part(lent, attempts, items)
        except _Raised as error:
            await self._all_failed(attempts, error.cause)
        except Exception as error:
            if len(attempts) > 1:
                await self._halves(attempts)
            else:
                self._settler.put(lost(self._execution, attempts[0], error))
        else:
            if kept:
                self._settler.committed(outcomes)
            elif len(attempts) > 1:
                await self._halves(attempts)
            else:
                self._settler.put(outcomes[0])

    async def _part(
        self, lent: StoreTransaction, attempts: list[Attempt], items: list[Any]
    ) -> tuple[list[Outcome], bool]:
        """The body, and its commit unless something of it must not stand."""
        signature = attempts[0].task.signature
        assert signature.transaction is not None
        await lent.off_loop(lent.savepoint)
        tx: Any = AsyncTransaction(lent) if attempts[0].task.is_async else Transaction(lent)
        results = await self._call(attempts, items, {signature.transaction: tx})
        attempts[0].submitted = tx.submitted
        outcomes, refused = self._outcomes(attempts, results)
        stopped = any(attempt.stop for attempt in attempts)
        if stopped and len(attempts) == 1:
            return [self._execution.stopped(attempts[0])], False
        if refused or stopped:
            return outcomes, False
        if await lent.off_loop(release_and_commit, lent, outcomes):
            return outcomes, True
        return [self._execution.handed_back(attempt) for attempt in attempts], False

    async def _call(self, attempts: list[Attempt], items: list[Any], injected: dict[str, Any]) -> Any:
        """Call the function with the list; `_Raised` if it raised."""
        task, meter = attempts[0].task, attempts[0]
        name = next(iter(task.arguments.parameters))
        args, kwargs = task.arguments.call_arguments({name: items})
        kwargs = {**kwargs, **injected}
        tx = next(iter(injected.values()), None)
        for attempt in attempts:
            attempt.begun = True
        limit = asyncio.timeout(
            task.timeout_s if tx is None else min(bounds.WRITER_HOLD_S_MAX, task.timeout_s)
        )
        try:
            async with limit:
                if task.is_async:
                    value = await self._async_body(task, meter, args, kwargs)
                else:
                    value = await self._sync_call(meter, partial(_sync_body, task, args, kwargs), tx)
        except TransactionTooLong:
            raise
        except TimeoutError as error:
            if limit.expired() and tx is not None and task.timeout_s > bounds.WRITER_HOLD_S_MAX:
                raise too_long() from error
            kind = FailureClass.TIMEOUT if limit.expired() else FailureClass.ERROR
            raise _Raised(raised(error, kind)) from error
        except asyncio.CancelledError as error:
            if all(attempt.stop for attempt in attempts):
                raise
            raise _Raised(raised(error)) from error
        except BaseException as error:
            raise _Raised(raised(error)) from error
        share_ns = meter.cpu_ns // len(attempts)
        for attempt in attempts:
            attempt.cpu_ns = share_ns
        return value

    async def _sync_call(self, meter: Attempt, body: Callable[[], Any], tx: Transaction | None) -> Any:
        if tx is None:
            return await self._execution.in_thread(meter, body)
        return await tx.lent.off_loop(measured, meter, body)

    async def _async_body(self, task: Declaration, meter: Attempt, args: Any, kwargs: dict[str, Any]) -> Any:
        tx = kwargs.get(task.signature.transaction or "")
        try:
            value = await metered(meter, task.function(*args, **kwargs))
            if tx is not None:
                await tx.finish()
            return value
        finally:
            if tx is not None:
                await tx.close()

    def _outcomes(self, attempts: Sequence[Attempt], results: Any) -> tuple[list[Outcome], bool]:
        """One outcome each; and whether a result was refused, as opposed to an item declared `Failed`."""
        execution = self._execution
        task = attempts[0].task
        if results is None and task.result.annotation in (type(None), None):
            results = [None] * len(attempts)
        if not isinstance(results, list) or len(results) != len(attempts):
            got = f"{len(results)} results" if isinstance(results, list) else f"a {type(results).__name__}"
            error = raised(
                NotEncodable(
                    f"Batch task {task.name!r} returned {got} for {len(attempts)} runs.",
                    hint="Return a list with one result, or Failed(error), for each, in the same order.",
                ),
                FailureClass.RESULT,
            )
            return [execution.failed(attempt, error) for attempt in attempts], True
        outcomes = []
        refused = False
        for attempt, result in zip(attempts, results, strict=True):
            if isinstance(result, Failed):
                outcomes.append(execution.failed(attempt, raised(result.error)))
                continue
            outcome = execution.returned(attempt, result)
            refused = refused or (outcome.failure is not None)
            outcomes.append(outcome)
        return outcomes, refused

    async def _all_failed(self, attempts: list[Attempt], error: Raised) -> None:
        """The function raised: its culprit is looked for where the task allows it, else all of them failed."""
        if len(attempts) > 1 and attempts[0].task.split:
            await self._halves(attempts)
            return
        for attempt in attempts:
            stopped = attempt.stop is not None
            self._settler.put(
                self._execution.stopped(attempt) if stopped else self._execution.failed(attempt, error)
            )

    async def _halves(self, attempts: list[Attempt]) -> None:
        middle = len(attempts) // 2
        await self._execute(attempts[:middle])
        await self._execute(attempts[middle:])


class _Raised(Exception):
    """The function of the batch raised."""

    def __init__(self, cause: Raised) -> None:
        super().__init__(cause.failure.message)
        self.cause = cause


def _sync_body(task: Declaration, args: Any, kwargs: dict[str, Any]) -> Any:
    tx = kwargs.get(task.signature.transaction or "")
    try:
        value = task.function(*args, **kwargs)
        if tx is not None:
            tx.finish()
        return value
    finally:
        if tx is not None:
            tx.close()
