"""A million runs that cannot run now, at the head of the queue, and how fast those behind them are executed.

Whatever can hold runs back has its turn. Each store is filled once with the million; then the same number of
open runs is drained there and from a store without them, in turns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.engine import apps
from benchmarks.engine.draining import drain, fill, filled_and_drained, record_beside
from benchmarks.engine.stage import Stage
from lineshaft import App

BLOCKED = 1_000_000
DRAINED = 20_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of being held back."""

    config: str
    app: Callable[[str], apps.WithBlocked]
    """Declares what is held back beside what is not."""
    knows_blocked: bool = True
    """Whether the workers know the task of what is held back."""
    let_through: int = 0
    """Runs that are executed before the rest is held back."""
    delay: str | None = None
    then: Callable[[App], Awaitable[None]] | None = None

    @property
    def executed_by(self) -> str:
        return apps.named(self.app.__name__) if self.knows_blocked else apps.PLAIN


async def _park(app: App) -> None:
    """Park what no worker knows, as the sweeps of workers would in time."""
    while await app.runtime.store.park(app.runtime.clock.now_us()):
        pass


KINDS = (
    Kind("one lane behind a concurrency limit", apps.with_limit),
    Kind("one lane behind a rate", apps.with_rate, let_through=1),
    Kind("1,000 lanes behind rates", apps.with_tenants, let_through=1_000),
    Kind("a task that no worker knows", apps.with_unlimited, knows_blocked=False),
    Kind("parked", apps.with_unlimited, knows_blocked=False, then=_park),
    Kind("scheduled for tomorrow", apps.with_unlimited, delay="1d"),
)


async def measure(stage: Stage) -> None:
    for kind in KINDS:
        await _measure(stage, kind)
        stage.remove("blocked")


async def _measure(stage: Stage, kind: Kind) -> None:
    blocked_runs = stage.size(BLOCKED, at_least=2_000)
    runs = stage.size(DRAINED, at_least=500)
    settings: dict[str, Any] = {"blocked": blocked_runs, "runs": runs}
    address = stage.store("blocked")
    app, task, blocked = kind.app(address)
    async with app:
        await fill(stage, blocked, blocked_runs, delay=kind.delay)
        if kind.then is not None:
            await kind.then(app)
        if kind.let_through:
            await drain(stage, address, app, kind.executed_by, kind.let_through)
        for _ in stage.rounds():
            await fill(stage, task, runs)
            behind = await drain(stage, address, app, kind.executed_by, runs)
            alone = await filled_and_drained(stage, kind.executed_by, runs)
            record_beside(stage, kind.config, behind, alone, **settings)
