"""The heartbeat: a thread that extends the worker's lease while the event loop is alive.

A loop that is merely busy keeps its leases, since the thread beats beside it; one that is blocked loses them,
since the thread stops when the loop has not ticked for most of a lease. So work is never held by a worker that
could not notice that it must stop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from lineshaft.core.host import Host, Thread
from lineshaft.store.port import Leases

_log = logging.getLogger("lineshaft")
TICK_S = 0.5


class Heart:
    """Beats for one worker until stopped. `lost` is called on the loop when the lease is gone."""

    def __init__(self, store: Leases, host: Host, lease_s: float, lost: Callable[[], None]) -> None:
        self._store = store
        self._threading = host.threading
        self._clock = clock = host.clock
        self._lease_s = lease_s
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._worker = 0
        self._ticked_s = clock.monotonic_s()
        self._extended_s = clock.monotonic_s()
        self._stop = self._threading.event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread: Thread | None = None
        self.blocked = False

    def start(self, worker: int) -> None:
        """Beat for this incarnation, whose lease has just been given."""
        self._worker = worker
        self._extended_s = self._clock.monotonic_s()
        if self._timer is None:
            self._tick()
        if self._thread is None or not self._thread.is_alive():
            self._thread = self._threading.start(self._beat, "lineshaft-heart")

    def stop(self) -> None:
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._ticked_s = self._clock.monotonic_s()
        if self.blocked:
            self.blocked = False
            _log.warning("The event loop ticks again.")
        if self._ticked_s - self._extended_s > self._lease_s:
            # Our own clock says that the lease is over, whether or not anybody has noticed.
            self._extended_s = self._ticked_s
            self._lost()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_s / 5):
            quiet_s = self._clock.monotonic_s() - self._ticked_s
            if quiet_s > self._lease_s * 0.8:
                if not self.blocked:
                    self.blocked = True
                    _log.error(
                        "The event loop has been blocked for %.0f seconds: its leases run out. Something"
                        " synchronous runs on it; look for it with py-spy, and make it a def task.",
                        quiet_s,
                    )
                continue
            worker, began_s = self._worker, self._clock.monotonic_s()
            try:
                held = self._store.beat(worker, int(self._lease_s * 1_000_000))
            except Exception as error:
                # Whatever it is, the next beat may get through, and without beats all leases are lost.
                _log.warning("The heartbeat did not reach the store: %s", error)
                continue
            if held:
                self._extended_s = began_s
            elif worker == self._worker and not self._stop.is_set():
                self._loop.call_soon_threadsafe(self._lost)
