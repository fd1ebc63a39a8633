"""From a decorated function to a declaration: everything that can be wrong with it is said here, at once."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from types import UnionType
from typing import Any, Literal, TypedDict, get_args, get_origin

from lineshaft.core import bounds
from lineshaft.core.codec import ArgumentsCodec, ValueCodec
from lineshaft.core.duration import Duration, seconds
from lineshaft.core.errors import DeclarationError, InvalidSetting
from lineshaft.core.policies import Limit, Rate, Retry
from lineshaft.engine.batches import Failed
from lineshaft.engine.context import Context
from lineshaft.engine.transactions import AsyncTransaction, Transaction

DEFAULT_QUEUE = "default"
RunIn = Literal["async", "thread", "process"]
TenantOf = Callable[..., str]

SUBMIT_OPTIONS = frozenset(
    {"key", "key_retention", "retry_failed", "tenant", "priority", "delay", "due", "tx"}
)
"""Names that `submit` keeps for itself; no task may have parameters called so."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Declaration:
    """A task as declared. Hints are resolved at first use, since they may name what is defined later."""

    function: Callable[..., Any]
    name: str
    version: str
    queue: str
    run_in: RunIn
    retry: Retry | None
    timeout_s: float
    priority: int
    limits: tuple[Limit | Rate, ...]
    tenant: TenantOf | Literal["required"] | None
    at_most_once: bool
    batch: int | None
    batch_wait_s: float
    split_wanted: bool | None
    key_retention_s: float

    @property
    def where(self) -> str:
        """File and line of the function, for `explain` and errors."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else self.function.__module__

    @property
    def target(self) -> str:
        """What a pool child imports."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    @cached_property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    @cached_property
    def signature(self) -> Signature:
        """Parameters and result, read from the hints."""
        return _signature(self)

    @property
    def split(self) -> bool:
        """Whether the culprit of a batch that raised is looked for."""
        if self.split_wanted is None:
            # What a transaction wrote for the neighbours is rolled back, so splitting repeats nothing.
            return self.signature.transaction is not None
        return self.split_wanted

    @cached_property
    def arguments(self) -> ArgumentsCodec:
        return ArgumentsCodec(self.name, self.signature.parameters)

    @cached_property
    def result(self) -> ValueCodec:
        return ValueCodec(f"the result of task {self.name!r}", self.signature.result)

    def encode_result(self, value: Any) -> bytes:
        """What the function returned, validated against its hint and encoded."""
        return self.result.encode(self.result.validate(value))

    def build(self) -> None:
        """Resolve hints and build the codecs now, as a worker does before it claims anything."""
        self.arguments.build()
        self.result.build()


@dataclass(frozen=True)
class Signature:
    """What the hints of a function say."""

    parameters: tuple[inspect.Parameter, ...]
    """Those that callers fill; of a batch task the one item."""
    result: Any
    context: str | None
    """Name of the parameter that takes the `Context`."""
    transaction: str | None
    transaction_type: type[Transaction] | type[AsyncTransaction] | None


class _Unresolved(DeclarationError):
    """A hint names what is not defined, or not yet."""


class TaskOptions(TypedDict, total=False):
    """What `@app.task` may be given; `App.task` says what each means."""

    name: str | None
    version: str
    queue: str
    run_in: RunIn | None
    retry: Retry | None
    timeout: Duration | None
    priority: int
    limits: Sequence[Limit | Rate]
    tenant: TenantOf | Literal["required"] | None
    at_most_once: bool
    batch: int | None
    batch_wait: Duration
    split: bool | None
    key_retention: Duration


def declare(function: Callable[..., Any], options: Mapping[str, Any]) -> Declaration:
    """Check what `@app.task` was given and make the declaration of it."""
    if not hasattr(function, "__qualname__") or isinstance(function, type | staticmethod | classmethod):
        raise DeclarationError(
            f"@app.task decorates functions; got {function!r}.", hint="Wrap it in a function of its own."
        )
    name = options.get("name") or function.__qualname__.replace("<locals>.", "")
    what = f"Task {name!r}"
    unknown = options.keys() - TaskOptions.__annotations__.keys()
    if unknown:
        raise DeclarationError(
            f"{what} has the unknown setting {min(unknown)!r}.",
            hint=f"There are: {', '.join(TaskOptions.__annotations__)}.",
        )
    version, queue = options.get("version", "1"), options.get("queue", DEFAULT_QUEUE)
    priority, batch = options.get("priority", 0), options.get("batch")
    timeout = options.get("timeout")
    for label, text in (("name", name), ("version", version), ("queue", queue)):
        check_name(text, f"{what}: its {label}")
    check_priority(priority, what)
    if batch is not None and (isinstance(batch, bool) or not 1 <= batch <= bounds.BATCH_MAX):
        raise InvalidSetting(f"{what}: batch is {batch!r}; it must lie between 1 and {bounds.BATCH_MAX}.")
    declaration = Declaration(
        function=function,
        name=name,
        version=version,
        queue=queue,
        run_in=options.get("run_in") or ("async" if inspect.iscoroutinefunction(function) else "thread"),
        retry=options.get("retry"),
        timeout_s=bounds.TIMEOUT_S_DEFAULT if timeout is None else seconds(timeout, f"{what}: timeout"),
        priority=priority,
        limits=tuple(options.get("limits", ())),
        tenant=options.get("tenant"),
        at_most_once=options.get("at_most_once", False),
        batch=batch,
        batch_wait_s=seconds(options.get("batch_wait", "50ms"), f"{what}: batch_wait", at_most_s=60),
        split_wanted=options.get("split"),
        key_retention_s=seconds(
            options.get("key_retention", bounds.KEY_RETENTION_S), f"{what}: key_retention"
        ),
    )
    _check(declaration, what)
    # A hint may name what is defined further down; it is looked at again at first use.
    with suppress(_Unresolved):
        _ = declaration.signature
    return declaration


def _check(task: Declaration, what: str) -> None:
    if task.retry is not None and not isinstance(task.retry, Retry):
        raise InvalidSetting(f"{what}: retry is {task.retry!r}.", hint="Use Retry(attempts=…).")
    if task.timeout_s == 0:
        raise InvalidSetting(f"{what}: timeout is 0; no attempt could ever succeed.")
    if task.run_in not in ("async", "thread", "process"):
        raise InvalidSetting(f'{what}: run_in is {task.run_in!r}; it must be "async", "thread" or "process".')
    if inspect.isgeneratorfunction(task.function) or inspect.isasyncgenfunction(task.function):
        raise DeclarationError(
            f"{what} is a generator function; calling it would execute none of it.", hint="Return a list."
        )
    if task.is_async and task.run_in == "thread":
        raise DeclarationError(
            f"{what} is an async function and cannot run in a thread.", hint="Leave run_in out, or use def."
        )
    if not task.is_async and task.run_in == "async":
        raise DeclarationError(
            f"{what} is a synchronous function; run on the event loop it would block every other run.",
            hint='Use async def, or run_in="thread".',
        )
    if task.run_in == "process":
        _check_importable(task, what)
    if task.at_most_once and task.retry is not None:
        raise DeclarationError(
            f"{what} is at most once and has a retry policy; a retry would be a second time.",
            hint="Leave one of them out.",
        )
    if task.at_most_once and task.batch is not None:
        raise DeclarationError(f"{what}: a batch cannot be at most once.", hint="Leave one of them out.")
    check_limits(task.limits, what)
    per_tenant = [limit for limit in task.limits if limit.per == "tenant"]
    if per_tenant and task.tenant is None:
        raise DeclarationError(
            f"{what} has {per_tenant[0]}, but its runs have no tenants.",
            hint='Say tenant=lambda …: … to derive one from the arguments, or tenant="required" where each'
            " submission names it.",
        )
    if not (task.tenant is None or task.tenant == "required" or callable(task.tenant)):
        raise InvalidSetting(
            f'{what}: tenant is {task.tenant!r}; give a function of the arguments or "required".'
        )


def _check_importable(task: Declaration, what: str) -> None:
    qualname = task.function.__qualname__
    if "<" in qualname:
        kind = "a lambda" if "<lambda>" in qualname else "a local function"
        raise DeclarationError(
            f"{what} is {kind}, which a process of the pool cannot import.",
            hint="Declare it with def at the top level of a module.",
        )
    if task.batch is not None:
        raise DeclarationError(f"{what}: batches do not run in processes.", hint='Use run_in="thread".')


def check_limits(limits: Sequence[Any], what: str) -> None:
    """Raise unless these are limits, each of another kind."""
    for limit in limits:
        if not isinstance(limit, Limit | Rate):
            raise InvalidSetting(f"{what}: {limit!r} is no limit.", hint="Use Limit(…) and Rate(…).")
    kinds = [(type(limit), limit.per) for limit in limits]
    if len(set(kinds)) < len(kinds):
        raise InvalidSetting(f"{what} has two limits of one kind.", hint="Keep the stricter one.")


def check_name(text: Any, what: str) -> None:
    """Raise unless this can be a name: some printable text of a bounded length."""
    if not isinstance(text, str) or not text or len(text) > bounds.NAME_CHARS_MAX or not text.isprintable():
        shown = repr(text)[:80]
        raise InvalidSetting(
            f"{what} is {shown}; it must be printable text of 1 to {bounds.NAME_CHARS_MAX} characters."
        )


def check_priority(priority: Any, what: str) -> None:
    """Raise unless this is a priority."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > bounds.PRIORITY_MAX:
        raise InvalidSetting(
            f"{what}: priority is {priority!r}; it must be a whole number between"
            f" {-bounds.PRIORITY_MAX} and {bounds.PRIORITY_MAX}."
        )


def _signature(task: Declaration) -> Signature:
    what = f"Task {task.name!r}"
    signature = inspect.signature(task.function)
    try:
        hints = typing.get_type_hints(inspect.unwrap(task.function), include_extras=True)
    except NameError as error:
        raise _Unresolved(
            f"{what} ({task.where}) has a type hint that names {error.name!r}, which its module does not define.",
            hint="Define or import it at the top of the module, not under TYPE_CHECKING nor in a function.",
        ) from error
    context: list[str] = []
    transactions: list[tuple[str, Any]] = []
    visible = []
    for parameter in signature.parameters.values():
        hint = hints.get(parameter.name, inspect.Parameter.empty)
        if hint is Context:
            context.append(parameter.name)
        elif hint in (Transaction, AsyncTransaction):
            transactions.append((parameter.name, hint))
        else:
            visible.append(parameter.replace(annotation=hint))
    result = hints.get("return", inspect.Signature.empty)
    if len(context) > 1 or len(transactions) > 1:
        raise DeclarationError(f"{what} takes two contexts or two transactions.", hint="One is enough.")
    taken = SUBMIT_OPTIONS.intersection(parameter.name for parameter in visible)
    if taken:
        raise DeclarationError(
            f"{what} has a parameter called {min(taken)!r}, which submit keeps for itself.",
            hint="Give it another name.",
        )
    name, kind = transactions[0] if transactions else (None, None)
    if kind is not None:
        _check_transaction(task, kind, what)
    if task.batch is not None:
        if context:
            raise DeclarationError(f"{what}: a batch has no one run, so it takes no Context.")
        visible, result = _of_items(visible, result, what)
    return Signature(tuple(visible), result, context[0] if context else None, name, kind)


def _check_transaction(task: Declaration, kind: Any, what: str) -> None:
    if task.run_in == "process":
        raise DeclarationError(
            f"{what} runs in another process, where there is no transaction of the store.",
            hint="Return what is to be written, and write it in a task of its own.",
        )
    if task.at_most_once:
        raise DeclarationError(
            f"{what}: what a transaction writes is exactly once already; leave at_most_once out."
        )
    if task.is_async != (kind is AsyncTransaction):
        raise DeclarationError(
            f"{what} takes {'a Transaction' if kind is Transaction else 'an AsyncTransaction'}, but is"
            f" {'an async' if task.is_async else 'a synchronous'} function.",
            hint="async def takes AsyncTransaction, def takes Transaction.",
        )


def _of_items(
    visible: list[inspect.Parameter], result: Any, what: str
) -> tuple[list[inspect.Parameter], Any]:
    """The item's parameter and result, from those of the batch."""
    hint = 'Write it as def task(entries: list[Entry], …) -> list[Result | Failed], "…" being injected ones.'
    if len(visible) != 1 or get_origin(visible[0].annotation) not in (list, Sequence):
        raise DeclarationError(f"{what} is a batch task, but does not take one list.", hint=hint)
    item = visible[0].replace(annotation=get_args(visible[0].annotation)[0])
    if result is None or result is type(None):
        return [item], type(None)
    if result is inspect.Signature.empty:
        return [item], result
    if get_origin(result) is not list:
        raise DeclarationError(f"{what} is a batch task, but does not return a list.", hint=hint)
    of_item = get_args(result)[0]
    if get_origin(of_item) in (typing.Union, UnionType):
        members = tuple(member for member in get_args(of_item) if member is not Failed)
        of_item = typing.Union[members]  # noqa: UP007 - the members are known only when it runs
    return [item], of_item
