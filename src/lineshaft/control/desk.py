"""Where use-cases are carried out: on which store, for whom, and past the one check that all of them share."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

from lineshaft.control.stores import open_existing
from lineshaft.core.clock import Clock, SystemClock
from lineshaft.core.ident import Chance, SystemChance
from lineshaft.store.port import Store

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("lineshaft.control")


@dataclass(frozen=True, slots=True)
class Desk:
    """What use-cases act on."""

    store: Store
    clock: Clock = field(default_factory=SystemClock)
    chance: Chance = field(default_factory=SystemChance)
    principal: str = "operator"
    """Who acts."""


_UseCase = Callable[Concatenate[Desk, P], Coroutine[Any, Any, R]]


@asynccontextmanager
async def desk_at(address: str) -> AsyncIterator[Desk]:
    """A desk over an existing store, opened for the block. Never creates one."""
    store = open_existing(address)
    try:
        yield Desk(store)
    finally:
        await store.close()


def use_case(
    permission: str,
) -> Callable[[_UseCase[P, R]], _UseCase[P, R]]:
    """Make a function a use-case that needs a permission, such as "runs.cancel".

    Every one passes here: this is where a principal is authorised before, and where the audit is written after.
    """

    def decorate(act: _UseCase[P, R]) -> _UseCase[P, R]:
        @functools.wraps(act)
        async def guarded(desk: Desk, /, *args: P.args, **kwargs: P.kwargs) -> R:
            result = await act(desk, *args, **kwargs)
            _log.debug("%s did %s%r.", desk.principal, permission, args)
            return result

        return guarded

    return decorate
