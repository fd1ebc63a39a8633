"""Running a use-case from a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from lineshaft.control.desk import Desk

T = TypeVar("T")


def at_desk(address: str, act: Callable[[Desk], Awaitable[T]]) -> T:
    """Open the store, which must exist, and act on it."""
    from lineshaft.control.desk import desk_at

    async def acting() -> T:
        async with desk_at(address) as desk:
            return await act(desk)

    return asyncio.run(acting())
