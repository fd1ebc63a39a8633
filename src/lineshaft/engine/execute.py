"""One attempt at a run: `Execution.attempt` reads as the sentence of what happens.

Where the function runs is decided by its declaration: on the event loop, in a thread, in a process, in
a transaction (`transact.py`) or in a batch (`batching.py`). However it ends, the end becomes one outcome, and
the settler writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol

from lineshaft.core.clock import Clock
from lineshaft.core.errors import InvalidArguments, LineshaftError, RunCancelled
from lineshaft.core.ident import Chance
from lineshaft.core.spawn import Background, start
from lineshaft.core.states import FailureClass, State
from lineshaft.core.threads import Threads
from lineshaft.engine.attempt import Attempt, Stop, measured, metered
from lineshaft.engine.context import Context, Progress
from lineshaft.engine.fairness import place_in_lane_us
from lineshaft.engine.outcomes import Raised, raised, retry_pause_s
from lineshaft.engine.settle import Settler
from lineshaft.engine.turns import Turns
from lineshaft.store.port import Claims
from lineshaft.store.values import Failure, Outcome

_log = logging.getLogger("lineshaft")
PAUSE_S = 1.0
"""Before a run is tried again that could not start for a reason that is not its own."""


class Reply(Protocol):
    """How a call in a pool child ended."""

    @property
    def result(self) -> bytes | None: ...
    @property
    def failure(self) -> Any: ...
    @property
    def cpu_s(self) -> float: ...


class Processes(Protocol):
    """Where tasks declared with run_in="process" execute."""

    async def call(self, target: str, payload: bytes, *, timeout_s: float | None = None) -> Reply: ...


class Execution:
    """Executes the runs that one worker holds."""

    def __init__(
        self,
        *,
        store: Claims,
        clock: Clock,
        chance: Chance,
        settler: Settler,
        threads: Threads,
        processes: Callable[[], Awaitable[Processes]],
        report: Callable[[str, Progress], None],
        thread_busy: Callable[[int], None],
    ) -> None:
        self.store = store
        self.clock = clock
        self.settler = settler
        self._chance = chance
        self._threads = threads
        self._processes = processes
        self._report = report
        self._thread_busy = thread_busy
        self._turns = Turns(clock, self.attempt)
        self.background = Background()

    def start(self, attempts: Iterable[Attempt]) -> None:
        """Begin attempts; their outcomes go to the settler by themselves."""
        on_loop: deque[Attempt] = deque()
        for attempt in attempts:
            if attempt.task.is_async and not attempt.task.at_most_once:
                on_loop.append(attempt)
            else:
                attempt.running = start(self.attempt(attempt))
        self._turns.start(on_loop)

    async def attempt(self, attempt: Attempt) -> None:
        """Execute one run once and put down how it ended."""
        attempt.started_us = self.clock.now_us()
        if self.ended_before(attempt):
            return
        try:
            if attempt.task.at_most_once and not await self._may_start(attempt):
                outcome = self.handed_back(attempt, PAUSE_S)
            else:
                outcome = await self._perform(attempt)
        except asyncio.CancelledError:
            if attempt.stop is None:
                # Nobody of ours asked for it: the event loop itself is going down.
                attempt.stop = Stop.DRAINED
            outcome = self.stopped(attempt)
        except Exception as error:
            outcome = self.failed(attempt, raised(error))
        self.settler.put(outcome)

    def ended_before(self, attempt: Attempt) -> bool:
        """Put down a run that was stopped before it began; whether it was."""
        if attempt.run.cancel_requested and attempt.stop is None:
            attempt.stop = Stop.CANCELLED
        if attempt.stop is None:
            return False
        self.settler.put(self.stopped(attempt))
        return True

    async def _may_start(self, attempt: Attempt) -> bool:
        """Commit the start of at-most-once work before it starts."""
        run = attempt.run
        try:
            return await self.store.mark_started(run.id, run.fence, attempt.worker)
        except LineshaftError as error:
            _log.warning("The start of run %s cannot be recorded: %s", run.id, error)
            return False

    async def _perform(self, attempt: Attempt) -> Outcome:
        """Decode, call, encode: every way in which that ends."""
        task = attempt.task
        context = copy_context()  # of its own: the task may be shared with other attempts
        try:
            if task.run_in == "process":
                return await self._in_process(attempt)
            values = context.run(task.arguments.decode, attempt.run.args)
        except InvalidArguments as error:
            return self.parked(attempt, error)
        if task.signature.context is not None:
            values[task.signature.context] = self.context(attempt)
        attempt.begun = True
        attempt.deadline_s = self.clock.monotonic_s() + task.timeout_s
        try:
            args, kwargs = task.arguments.call_arguments(values)
            if task.is_async:
                value = await metered(attempt, task.function(*args, **kwargs), context)
            else:
                value = await self.in_thread(attempt, partial(task.function, *args, **kwargs))
        except asyncio.CancelledError as error:
            if attempt.stop is not None:
                raise
            return self.timed_out(attempt) if attempt.timed_out else self.failed(attempt, raised(error))
        except RunCancelled as error:
            if attempt.stop is not None:
                return self.stopped(attempt)
            return self.failed(attempt, raised(error))
        except BaseException as error:
            # SystemExit and KeyboardInterrupt too: let through, they would end the loop and all that runs on it.
            return self.failed(attempt, raised(error))
        return context.run(self.returned, attempt, value)

    async def in_thread(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Call in a thread. If it is given up before it returns, the thread stays busy and is counted so."""
        loop = asyncio.get_running_loop()

        def occupy() -> Any:
            try:
                return measured(attempt, call)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is gone, and so is who counts
                    loop.call_soon_threadsafe(self._thread_busy, -1)

        self._thread_busy(+1)
        future = loop.run_in_executor(self._threads, occupy)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_retrieve)
            raise

    async def _in_process(self, attempt: Attempt) -> Outcome:
        task, run = attempt.task, attempt.run
        header = None
        if task.signature.context is not None:
            header = {
                "run_id": run.id,
                "task": run.lane.task,
                "queue": run.lane.queue,
                "tenant": run.lane.tenant,
                "attempt": attempt.number,
                "idempotency_key": run.first_id,
            }
        processes = await self._processes()
        attempt.begun = True
        payload = json.dumps(header).encode() + b"\n" + run.args
        try:
            reply = await processes.call(task.target, payload, timeout_s=task.timeout_s)
        except asyncio.CancelledError:
            raise
        except LineshaftError as error:
            if error.retryable:
                return self.handed_back(attempt, PAUSE_S)
            return self.failed(attempt, raised(error))
        attempt.cpu_ns += int(reply.cpu_s * 1e9)
        if reply.failure is None:
            return self.outcome(attempt, State.SUCCEEDED, result=reply.result)
        return self._failed_in_process(attempt, reply.failure)

    def _failed_in_process(self, attempt: Attempt, failure: Any) -> Outcome:
        if failure.cause == "timeout":
            return self.timed_out(attempt)
        if attempt.task.at_most_once and failure.cause in ("died", "memory"):
            return self.outcome(attempt, State.OUTCOME_UNKNOWN)
        if _RESULT_REFUSED in failure.mro[:1]:
            refused = Failure(FailureClass.RESULT, _RESULT_REFUSED, failure.message, failure.traceback)
            return self.outcome(attempt, State.FAILED, failure=refused)
        if _REFUSED in failure.mro:
            refused = Failure(FailureClass.RESULT, _REFUSED, failure.message, failure.traceback)
            return self.outcome(attempt, State.PARKED, failure=refused, charged=False)
        kind = FailureClass.CRASH if failure.cause in ("died", "memory") else FailureClass.ERROR
        name = failure.mro[0] if failure.mro else f"lineshaft.ChildDied.{failure.cause}"
        classes = frozenset(failure.mro) or _ANY_ERROR
        return self.failed(attempt, Raised(Failure(kind, name, failure.message, failure.traceback), classes))

    def context(self, attempt: Attempt) -> Context:
        """What the function may know of its run."""
        run = attempt.run

        def report(progress: Progress) -> None:
            attempt.reported = True
            self._report(run.id, progress)

        return Context(
            run_id=run.id,
            task=run.lane.task,
            queue=run.lane.queue,
            tenant=run.lane.tenant,
            attempt=attempt.number,
            idempotency_key=run.first_id,
            report=report,
            stopped=lambda: attempt.stopped,
        )

    # Ends of an attempt

    def returned(self, attempt: Attempt, value: Any) -> Outcome:
        """The function returned: its result is validated and encoded."""
        try:
            return self.outcome(attempt, State.SUCCEEDED, result=attempt.task.encode_result(value))
        except LineshaftError as error:
            # Another attempt would end the same way.
            refused = raised(error, FailureClass.RESULT).failure
            return self.outcome(attempt, State.FAILED, failure=refused)

    def failed(self, attempt: Attempt, error: Raised) -> Outcome:
        """The function raised: another attempt if its policy says so."""
        task = attempt.task
        pause_s = retry_pause_s(task.retry, attempt.number, error, self._chance.fraction())
        if pause_s is None:
            return self.outcome(attempt, State.FAILED, failure=error.failure)
        due_us = self.clock.now_us() + int(pause_s * 1_000_000)
        return self.outcome(attempt, State.SCHEDULED, failure=error.failure, due_us=due_us)

    def timed_out(self, attempt: Attempt) -> Outcome:
        task = attempt.task
        message = f"Attempt {attempt.number} took longer than the timeout of {task.timeout_s:g} seconds."
        failure = Failure(FailureClass.TIMEOUT, "builtins.TimeoutError", message)
        return self.failed(attempt, Raised(failure, _TIMEOUT))

    def stopped(self, attempt: Attempt) -> Outcome:
        """Somebody stopped it."""
        if attempt.stop is Stop.CANCELLED:
            return self.outcome(attempt, State.CANCELLED, charged=attempt.begun)
        if attempt.begun and attempt.task.at_most_once:
            return self.outcome(attempt, State.OUTCOME_UNKNOWN)
        return self.handed_back(attempt)

    def handed_back(self, attempt: Attempt, pause_s: float = 0.0) -> Outcome:
        """It returns to its lane as if it had never been taken."""
        if not pause_s:
            return self.outcome(attempt, State.READY, charged=False)
        due_us = self.clock.now_us() + int(pause_s * 1_000_000)
        return self.outcome(attempt, State.SCHEDULED, charged=False, due_us=due_us)

    def parked(self, attempt: Attempt, error: InvalidArguments) -> Outcome:
        """The present code refuses the arguments: kept until code comes that accepts them."""
        return self.outcome(
            attempt, State.PARKED, failure=raised(error, FailureClass.RESULT).failure, charged=False
        )

    def outcome(
        self,
        attempt: Attempt,
        state: State,
        *,
        result: bytes | None = None,
        failure: Failure | None = None,
        charged: bool = True,
        due_us: int | None = None,
    ) -> Outcome:
        run = attempt.run
        now_us = self.clock.now_us()
        began_us = attempt.started_us or now_us
        due_us = run.due_us if due_us is None else due_us
        # By position, which for a tuple of so many costs half of what names do.
        return Outcome(
            run.id,
            run.fence,
            attempt.worker,
            state,
            began_us,
            now_us,
            max(0, now_us - began_us),
            attempt.cpu_ns // 1_000,
            charged,
            result,
            failure,
            due_us,
            place_in_lane_us(due_us, run.priority),
            attempt.slots,
            run.key is not None,
            # A thread that is not waited for any more may still report.
            attempt.reported or attempt.stopped or run.fence > 1,
        )


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Look at what became of a thread that nobody waits for, so that asyncio does not complain."""
    if not future.cancelled():
        future.exception()


_RESULT_REFUSED = "lineshaft.core.errors.NotEncodable"
_REFUSED = "lineshaft.engine.task.ArgumentsRefused"
_TIMEOUT = frozenset(
    {"builtins.TimeoutError", "builtins.OSError", "builtins.Exception", "builtins.BaseException"}
)
_ANY_ERROR = frozenset({"builtins.RuntimeError", "builtins.Exception", "builtins.BaseException"})
