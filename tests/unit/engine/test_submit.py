"""Submissions that cannot be meant are refused in the caller; nothing is accepted then."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lineshaft import App, InvalidArguments, InvalidSetting, LineshaftError, NotEncodable, PayloadTooLarge
from lineshaft.core import bounds


class Order(BaseModel):
    id: str
    cents: int


@pytest.fixture
def app(tmp_path: Path) -> App:
    """Its store cannot be opened: whatever is refused, is refused before."""
    return App("test", store=f"sqlite:///{tmp_path}/nowhere/store.db")


@pytest.fixture
def charge(app: App) -> Any:
    @app.task(name="charge")
    async def charge(order: Order, note: str = "") -> None: ...

    return charge


GOOD = Order(id="a", cents=1)


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "order: missing"),
        ((5,), {}, "order.*Order"),
        (({"id": "a", "cents": 1},), {}, "order.*Pass the object itself"),
        ((GOOD, 7), {}, "note.*string"),
        ((GOOD, "a", "b"), {}, "2 arguments by position, got 3"),
        ((GOOD,), {"orders": 1}, "orders: there is no such parameter"),
        ((GOOD,), {"order": GOOD}, "order: given twice"),
    ],
)
async def test_wrong_arguments_name_the_task_the_parameter_and_the_reason(
    charge: Any, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidArguments, match=f"(?s)'charge'.*{says}"):
        await charge.submit(*args, **kwargs)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delay": -1}, "delay is -1.*negative"),
        ({"delay": "-5s"}, "delay is '-5s'"),
        ({"delay": math.nan}, "delay is nan"),
        ({"delay": math.inf}, "delay is inf"),
        ({"delay": "11y"}, "delay is '11y'"),
        ({"delay": 11 * 366 * 86_400}, "at most"),
        ({"due": datetime(2030, 1, 1)}, "due.*time zone.*now.UTC."),  # noqa: DTZ001
        ({"due": "tomorrow"}, "due is 'tomorrow'"),
        ({"due": datetime(9999, 1, 1, tzinfo=UTC)}, "ten years"),
        ({"due": datetime.max.replace(tzinfo=timezone(-timedelta(hours=14)))}, "ten years"),
        ({"due": datetime.now(UTC), "delay": 1}, "both delay and due"),
        ({"priority": 1_001}, "priority"),
        ({"priority": 0.5}, "priority"),
        ({"key": ""}, "the key is ''"),
        ({"key": "k" * 201}, "200 characters"),
        ({"key": "nul\0"}, "printable"),
        ({"key": "\ud800"}, "printable"),
        ({"key": 5}, "the key is 5"),
        ({"key": lambda order, note: None}, "the key is None"),
        ({"key": "k", "key_retention": -1}, "key_retention"),
        ({"tenant": ""}, "the tenant is ''"),
        ({"tenant": "a\nb"}, "printable"),
    ],
)
async def test_options_that_cannot_be_meant_name_themselves(
    charge: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidSetting, match=f"(?s)'charge'.*{says}"):
        await charge.submit(GOOD, **options)


@pytest.mark.parametrize("option", ["key", "tenant"])
async def test_a_derivation_that_fails_says_which(charge: Any, option: str) -> None:
    with pytest.raises(InvalidArguments, match=rf"{option} .*'charge'.*cannot be derived.*ZeroDivisionError"):
        await charge.submit(GOOD, **{option: lambda order, note: 1 / 0})


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ("x" * (bounds.PAYLOAD_BYTES_MAX + 1), PayloadTooLarge, "1,048,5.*bound.*pass a reference"),
        ("\ud800", LineshaftError, "surrogate|utf-8"),
        (math.nan, NotEncodable, "nan"),
        (object(), LineshaftError, "object"),
    ],
)
async def test_payloads_that_cannot_be_kept_are_refused(
    app: App, value: Any, error: type[Exception], says: str
) -> None:
    @app.task(name="echo")
    async def echo(value) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(error, match=f"(?is)'echo'.*({says})"):
        await echo.submit(value)


async def test_a_payload_that_is_too_deep_is_refused(app: App) -> None:
    @app.task(name="echo")
    async def echo(value) -> None: ...  # type: ignore[no-untyped-def]

    deep: Any = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(NotEncodable, match="deeper than 100"):
        await echo.submit(deep)


@pytest.mark.parametrize(
    "address",
    ["postgres://x", "sqlite://", "sqlite:///", "sqlite:///:memory:", "store.db", "sqlite:///a.db?mode=ro"],
)
async def test_an_address_that_cannot_be_meant_is_refused(address: str) -> None:
    app = App("test", store=address)
    with pytest.raises(InvalidSetting, match=r"address of a store|names no file"):
        await app.__aenter__()
