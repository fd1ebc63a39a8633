"""A declared task: still a function to call, and now also work to submit."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypeVar

from lineshaft.core import bounds
from lineshaft.core.duration import Duration
from lineshaft.core.errors import InvalidArguments, NotEncodable, TransactionRefused
from lineshaft.engine.context import context_fields
from lineshaft.engine.declare import Declaration
from lineshaft.engine.portal import portal
from lineshaft.engine.run import Run
from lineshaft.engine.runtime import Runtime, is_async
from lineshaft.engine.submit import Options, prepare
from lineshaft.store.values import Accepted, NewRun

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
SUBMIT_CHUNK = 1_000
"""Runs that `submit_many` prepares between two looks at the event loop."""


_NOTHING: dict[str, Any] = {}


class Task(Generic[P, R]):
    """What `@app.task` makes of a function. Calling it simply calls the function."""

    def __init__(
        self, function: Callable[P, R], declaration: Declaration, runtime: Callable[[], Runtime]
    ) -> None:
        functools.update_wrapper(self, function)
        self.declaration = declaration
        self._function = function
        self._runtime = runtime

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    @property
    def name(self) -> str:
        return self.declaration.name

    async def submit(
        self,
        *args: Any,
        key: str | Callable[..., str] | None = None,
        key_retention: Duration | None = None,
        retry_failed: bool = False,
        tenant: str | Callable[..., str] | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        due: datetime | None = None,
        tx: Any = None,
        **kwargs: Any,
    ) -> Run[Any]:
        """Accept one run of this task. Once this returns it survives the death of every process of ours.

        `key` makes it idempotent: the same key, within `key_retention` counted from the run's finish, gives
        the same run (`Run.created` tells), and other arguments under it raise `KeyReused`; a holder that
        failed is replaced only with `retry_failed`. `delay` or `due` postpone it; `priority` moves it ahead
        of its neighbours. With `tx` it is part of that transaction and exists once that commits.

        Raises `InvalidArguments`, `NotEncodable`, `PayloadTooLarge`, `InvalidSetting`, `KeyReused`,
        `StoreError`; nothing was accepted then.
        """
        options = Options(key, key_retention, retry_failed, tenant, priority, delay, due)
        runtime = self._runtime()
        runs = prepare(self.declaration, [(args, kwargs)], options, runtime.clock, runtime.chance)
        accepted = await runtime.insert(runs, tx)
        return self._handle(accepted[0])

    async def submit_many(
        self,
        items: Iterable[Any],
        *,
        key: Callable[..., str] | None = None,
        key_retention: Duration | None = None,
        retry_failed: bool = False,
        tenant: str | Callable[..., str] | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        due: datetime | None = None,
        tx: Any = None,
    ) -> list[Run[Any]]:
        """Accept many runs: all of them, or none if this raises.

        Each item is the one argument of a run, or, where the task takes several, a tuple of them. `key` and
        `tenant` derive theirs from the arguments.
        """
        options = Options(key, key_retention, retry_failed, tenant, priority, delay, due)
        runtime = self._runtime()
        runs: list[NewRun] = []
        items = list(items)
        if len(items) > bounds.SUBMIT_RUNS_MAX:
            raise InvalidArguments(
                f"submit_many was given {len(items)} items for task {self.name!r}; it takes at most"
                f" {bounds.SUBMIT_RUNS_MAX}, since all are accepted in one commit.",
                hint="Submit them in parts.",
            )
        for start in range(0, len(items), SUBMIT_CHUNK):
            if start:
                await runtime.clock.sleep(0)
            calls = list(self._calls(items[start : start + SUBMIT_CHUNK]))
            runs += prepare(self.declaration, calls, options, runtime.clock, runtime.chance)
        if not runs:
            return []
        accepted = await runtime.insert(runs, tx)
        name, codec = self.name, self.declaration.result
        return [Run(runtime, run_id, name, codec, created=created) for run_id, created in accepted]

    @property
    def blocking(self) -> BlockingTask[R]:
        """The same for synchronous callers."""
        return BlockingTask(self)

    def execute_payload(self, payload: bytes) -> bytes:
        """Execute in a process of the pool: decode the arguments, call, encode the result."""
        task = self.declaration
        header, _, arguments = payload.partition(b"\n")
        try:
            values = task.arguments.decode(arguments)
        except InvalidArguments as error:
            raise ArgumentsRefused(error.message, hint=error.hint) from error
        fields = json.loads(header)
        if fields is not None and task.signature.context is not None:
            values[task.signature.context] = context_fields(fields)
        args, kwargs = task.arguments.call_arguments(values)
        value = task.function(*args, **kwargs)
        if asyncio.iscoroutine(value):
            value = asyncio.run(value)
        try:
            return task.encode_result(value)
        except InvalidArguments as error:
            raise NotEncodable(error.message, hint=error.hint) from error

    def run(self, run_id: str) -> Run[Any]:
        """The handle of a run of this task."""
        return Run(self._runtime(), run_id, self.name, self.declaration.result, created=False)

    def _calls(self, items: Iterable[Any]) -> Iterable[tuple[tuple[Any, ...], dict[str, Any]]]:
        count = len(self.declaration.signature.parameters)
        for item in items:
            if count != 1 and not isinstance(item, tuple | list):
                raise InvalidArguments(
                    f"submit_many was given {item!r:.100} for task {self.name!r}, which takes {count} arguments.",
                    hint="Give each item as a tuple of them.",
                )
            yield ((item,) if count == 1 else tuple(item)), _NOTHING

    def _handle(self, accepted: Accepted) -> Run[Any]:
        return Run(self._runtime(), accepted.id, self.name, self.declaration.result, created=accepted.created)


class BlockingTask(Generic[R]):
    """A task's submission for code without an event loop."""

    def __init__(self, task: Task[Any, R]) -> None:
        self._task = task

    def submit(self, *args: Any, tx: Any = None, **kwargs: Any) -> Run[Any]:
        """See `Task.submit`. With `tx` it happens in this thread, on the connection given."""
        if tx is None:
            return portal().call(self._task.submit(*args, **kwargs))
        _refuse_async(tx)
        return _driven(self._task.submit(*args, tx=tx, **kwargs))

    def submit_many(self, items: Iterable[Any], *, tx: Any = None, **kwargs: Any) -> list[Run[Any]]:
        """See `Task.submit_many`."""
        if tx is None:
            return portal().call(self._task.submit_many(items, **kwargs))
        _refuse_async(tx)
        return _driven(self._task.submit_many(items, tx=tx, **kwargs))


def _driven(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that has nothing to wait for, in this thread: its connection belongs here."""
    try:
        while True:
            work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result


def _refuse_async(tx: Any) -> None:
    if is_async(tx):
        raise TransactionRefused(
            "An asynchronous transaction was given to blocking.submit.",
            hint="Await submit(…, tx=…) instead.",
        )


class ArgumentsRefused(InvalidArguments):
    """The code in a process of the pool refuses the arguments of a run."""

    code = "arguments-refused"
