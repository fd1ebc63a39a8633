"""What a worker does beside its work: sweep over the dead, park what nobody can execute, prune."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from lineshaft.core import bounds
from lineshaft.core.clock import Clock
from lineshaft.core.errors import LineshaftError
from lineshaft.store.port import Leases, Operations

_log = logging.getLogger("lineshaft")
PRUNE_EVERY_S = 60.0


class Kept(Leases, Operations, Protocol):
    """What upkeep asks of the store."""


class Upkeep:
    """Every worker does it; two at once do no harm."""

    def __init__(
        self, store: Kept, clock: Clock, retention_s: float, lease_s: float, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._retention_us = int(retention_s * 1_000_000)
        self._every_s = lease_s / 3
        self._wake = wake

    async def serve(self) -> None:
        """Until cancelled."""
        since_prune_s = PRUNE_EVERY_S
        while True:
            try:
                await self._sweep()
                if since_prune_s >= PRUNE_EVERY_S:
                    since_prune_s = 0.0
                    await self._prune()
            except LineshaftError as error:
                _log.warning("Upkeep waits for the store: %s", error)
            await self._clock.sleep(self._every_s)
            since_prune_s += self._every_s

    async def _sweep(self) -> None:
        await self.rescue()
        parked = await self._store.park(self._clock.now_us())
        if parked:
            _log.warning("%d runs are parked: no live worker knows their task.", parked)

    async def rescue(self) -> None:
        """Return what dead workers held, and say so."""
        rescued = await self._store.rescue(self._clock.now_us())
        if rescued.workers:
            _log.warning(
                "Workers %s died: %d runs return, %d of them as suspects; %d failed for killing their workers,"
                " %d have an unknown outcome.",
                ", ".join(map(str, rescued.workers)),
                rescued.returned,
                rescued.suspects,
                len(rescued.failed),
                len(rescued.unknown),
            )
            self._wake()

    async def _prune(self) -> None:
        while True:
            now_us = self._clock.now_us()
            pruned = await self._store.prune(now_us - self._retention_us, now_us)
            if max(pruned.runs, pruned.keys) < bounds.PRUNE_ROWS_MAX:
                return
            # Let others write between two batches.
            await self._clock.sleep(0.02)
