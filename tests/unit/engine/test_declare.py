"""Declarations that cannot work are refused at once, with what is wrong, where, and what to do."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from lineshaft import (
    App,
    AsyncTransaction,
    Context,
    DeclarationError,
    Failed,
    InvalidSetting,
    Limit,
    LineshaftError,
    Rate,
    Retry,
    Transaction,
)

if TYPE_CHECKING:
    from decimal import Decimal


async def on_loop(number: int) -> int:
    return number


def in_thread(number: int) -> int:
    return number


def batch(numbers: list[int]) -> list[int]:
    return numbers


def with_transaction(number: int, tx: Transaction) -> None: ...


async def with_async_transaction(number: int, tx: AsyncTransaction) -> None: ...


def crossed(number: int, tx: AsyncTransaction) -> None: ...


async def crossed_too(number: int, tx: Transaction) -> None: ...


def two_contexts(one: Context, two: Context) -> None: ...


def two_transactions(one: Transaction, two: Transaction) -> None: ...


def batch_with_context(numbers: list[int], ctx: Context) -> list[int]:
    return numbers


def batch_of_two(numbers: list[int], more: list[int]) -> list[int]:
    return numbers


def batch_of_none() -> list[int]:
    return []


def batch_of_one(number: int) -> list[int]:
    return [number]


def batch_to_one(numbers: list[int]) -> int:
    return 1


def takes_key(key: str) -> None: ...


def generates() -> Iterator[int]:
    yield 1


async def generates_async() -> AsyncIterator[int]:
    yield 1


class Callee:
    def __call__(self, number: int) -> int:
        return number


def app() -> App:
    return App("test", store="sqlite:////nowhere/at/all.db")


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        # settings
        (on_loop, {"name": ""}, None),
        (on_loop, {"name": "a\nb"}, "name.*printable"),
        (on_loop, {"name": "x" * 201}, "name.*200"),
        (on_loop, {"name": 5}, "name is 5"),
        (on_loop, {"version": ""}, "version is ''"),
        (on_loop, {"version": 2}, "version is 2"),
        (on_loop, {"queue": "\ud800"}, "queue"),
        (on_loop, {"priority": 1_001}, "priority is 1001.*1000"),
        (on_loop, {"priority": "high"}, "priority is 'high'"),
        (on_loop, {"priority": True}, "priority is True"),
        (on_loop, {"timeout": -1}, "timeout is -1.*negative"),
        (on_loop, {"timeout": 0}, "timeout is 0"),
        (on_loop, {"timeout": math.nan}, "timeout is nan"),
        (on_loop, {"timeout": "soon"}, "timeout is 'soon'.*10m"),
        (on_loop, {"timeout": True}, "timeout is True"),
        (on_loop, {"retry": 3}, r"retry is 3.*Retry\("),
        (on_loop, {"limits": [5]}, "5 is no limit"),
        (on_loop, {"limits": [Limit(1), Limit(2)]}, "two limits of one kind"),
        (on_loop, {"limits": [Limit(1, per="tenant")]}, "no tenants.*tenant="),
        (on_loop, {"limits": [Rate(1, per="tenant")]}, "no tenants"),
        (on_loop, {"tenant": "acme"}, "tenant is 'acme'.*required"),
        (on_loop, {"key_retention": -1}, "key_retention"),
        (on_loop, {"batch": 0}, "batch is 0"),
        (on_loop, {"batch": 10_001}, "batch is 10001.*10000"),
        (on_loop, {"batch": True}, "batch is True"),
        (batch, {"batch": 5, "batch_wait": "-1s"}, "batch_wait"),
        (batch, {"batch": 5, "batch_wait": 61}, "batch_wait.*60"),
        (on_loop, {"retries": 3}, "unknown setting 'retries'.*retry"),
        (on_loop, {"run_in": "cloud"}, "run_in is 'cloud'.*process"),
        # what does not go together
        (on_loop, {"run_in": "thread"}, "async function.*thread"),
        (in_thread, {"run_in": "async"}, "synchronous.*async def"),
        (on_loop, {"at_most_once": True, "retry": Retry()}, "at most once.*retry"),
        (batch, {"at_most_once": True, "batch": 5}, "batch cannot be at most once"),
        (with_transaction, {"at_most_once": True}, "exactly once already"),
        (with_transaction, {"run_in": "process"}, "another process.*no transaction"),
        (batch, {"run_in": "process", "batch": 5}, "batches do not run in processes"),
        (crossed, {}, "takes an AsyncTransaction.*synchronous"),
        (crossed_too, {}, "takes a Transaction.*async"),
        (two_contexts, {}, "two contexts"),
        (two_transactions, {}, "two transactions"),
        (batch_with_context, {"batch": 5}, "no Context"),
        (batch_of_two, {"batch": 5}, "does not take one list"),
        (batch_of_none, {"batch": 5}, "does not take one list"),
        (batch_of_one, {"batch": 5}, r"does not take one list.*list\[Entry\]"),
        (batch_to_one, {"batch": 5}, "does not return a list"),
        (takes_key, {}, "'key', which submit keeps"),
        (lambda: 1, {"run_in": "process"}, "a lambda.*top level"),
        # what is no function
        (5, {}, "decorates functions; got 5"),
        (Callee(), {}, "decorates functions.*Wrap"),
        (Callee, {}, "decorates functions"),
        (functools.partial(in_thread, 1), {}, "decorates functions"),
        (generates, {}, "generator function.*list"),
        (generates_async, {}, "generator function"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_declared(
    function: Any, options: dict[str, Any], says: str | None
) -> None:
    if says is None:
        assert app().task(**options)(function).name == function.__qualname__
        return
    with pytest.raises((DeclarationError, InvalidSetting), match=f"(?s){says}"):
        app().task(**options)(function)


def test_a_local_function_cannot_run_in_a_process() -> None:
    def local() -> None: ...

    with pytest.raises(DeclarationError, match=r"a local function.*cannot import.*top level"):
        app().task(run_in="process")(local)


def test_a_name_belongs_to_one_function() -> None:
    one = app()
    one.task(on_loop)
    with pytest.raises(
        DeclarationError, match=r"(?s)'on_loop'.*declared twice.*test_declare.py.*under two names"
    ):
        one.task(on_loop)
    with pytest.raises(
        DeclarationError, match=r"(?s)'on_loop'.*declared twice: at .*test_declare.py:\d+ and at .*:\d+"
    ):
        one.task(name="on_loop")(in_thread)
    one.task(name="on_loop", version="2")(in_thread)


def test_a_queue_is_declared_once_and_well() -> None:
    one = app()
    one.queue("mail", limits=[Limit(1)])
    with pytest.raises(DeclarationError, match="'mail' is declared twice"):
        one.queue("mail")
    with pytest.raises(InvalidSetting, match="no limit"):
        one.queue("other", limits=[1])  # type: ignore[list-item]
    with pytest.raises(InvalidSetting, match="queue's name"):
        one.queue("")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Limit(0), "Limit is 0"),
        (lambda: Limit(-1), "Limit is -1"),
        (lambda: Limit(1.5), "Limit is 1.5"),  # type: ignore[arg-type]
        (lambda: Limit(True), "Limit is True"),
        (lambda: Limit(1, per="user"), "per is 'user'"),  # type: ignore[arg-type]
        (lambda: Rate(0), "Rate is 0"),
        (lambda: Rate(1, per_seconds=0), "per_seconds is 0"),
        (lambda: Rate(1, per_seconds=-5), "per_seconds is -5"),
        (lambda: Rate(1, per_seconds=math.nan), "per_seconds is nan"),
        (lambda: Retry(attempts=0), "attempts is 0"),
        (lambda: Retry(attempts=1_001), "attempts is 1001"),
        (lambda: Retry(initial=-1), "initial"),
        (lambda: Retry(maximum="x"), "maximum"),
        (lambda: Retry(factor=0.5), "factor is 0.5"),
        (lambda: Retry(on=("ValueError",)), "exception classes"),  # type: ignore[arg-type]
        (lambda: App(""), "app's name"),
        (lambda: App("a", history=-1), "history"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(InvalidSetting, match=says):
        make()


def test_a_hint_may_name_what_comes_later() -> None:
    @app().task(batch=2)
    def post(entries: list[Later], tx: Transaction) -> list[Later | Failed]:
        return list(entries)

    @app().task(batch=2, split=False)
    def unsplit(entries: list[Later], tx: Transaction) -> list[Later | Failed]:
        return list(entries)

    assert post.declaration.split
    assert not unsplit.declaration.split


def test_a_hint_that_names_nothing_is_explained_at_first_use() -> None:
    @app().task
    def charge(amount: Decimal) -> None: ...

    with pytest.raises(
        DeclarationError,
        match=r"(?s)charge'.*test_declare.py.*'Decimal'.*does not define.*not under TYPE_CHECKING",
    ):
        charge.declaration.build()
    with pytest.raises(DeclarationError, match="'Decimal'"):
        asyncio.run(charge.submit(1))


def test_a_hint_without_an_encoding_is_explained_at_first_use() -> None:
    @app().task
    def keeps(lock: asyncio.Lock) -> None: ...

    with pytest.raises(LineshaftError, match=r"(?s)keeps'.*Lock"):
        keeps.declaration.build()


def test_sequences_are_batches_too() -> None:
    @app().task(batch=2)
    def post(entries: Sequence[int]) -> list[int]:
        return list(entries)

    assert [str(parameter.annotation) for parameter in post.declaration.signature.parameters] == [
        "<class 'int'>"
    ]


class Later(dict[str, int]):
    pass
