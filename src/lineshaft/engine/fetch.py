"""Fetching runs: wait until there is room and reason, claim a batch, hand it to execution."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lineshaft.core import bounds
from lineshaft.core.clock import Clock
from lineshaft.core.errors import LineshaftError
from lineshaft.engine.fairness import served_up_to, share_out
from lineshaft.engine.registry import Registry
from lineshaft.store.port import Claims, Leases
from lineshaft.store.values import Claimed, ClaimReply, ClaimRequest, Held, Lane, LaneShare, OpenLane

_log = logging.getLogger("lineshaft")
PAUSE_S_MAX = 5.0
"""Longest pause between two tries when the store cannot be reached."""


class _Round:
    """A walk over all lanes, a bounded number of them in each claim, until one gives something.

    Without it a worker would wait while the lanes just visited were shut or not its own, and others were not.
    """

    def __init__(self) -> None:
        self.next_due_us: int | None = None
        self._from_lane: int | None = None
        self._wrapped = False

    def goes_on(self, after_lane: int, reply: ClaimReply) -> bool:
        """Whether to claim again at once, after a claim that began behind `after_lane`."""
        if self._from_lane is None:
            self._from_lane, self._wrapped, self.next_due_us = after_lane, False, None
        if reply.next_due_us is not None:
            self.next_due_us = min(self.next_due_us or reply.next_due_us, reply.next_due_us)
        wraps = reply.last_lane <= after_lane
        # Whoever comes past the end a second time has come past the beginning as well.
        is_over = reply.last_lane < 0 or (self._wrapped and wraps)
        self._wrapped = self._wrapped or wraps
        is_over = is_over or (self._wrapped and reply.last_lane >= self._from_lane)
        if reply.runs or is_over or not reply.more:
            self._from_lane = None
        return reply.more and (bool(reply.runs) or not is_over)


class Claiming(Claims, Leases, Protocol):
    """What fetching asks of the store."""


class Fetcher:
    """Claims for one worker."""

    def __init__(
        self,
        *,
        store: Claiming,
        clock: Clock,
        registry: Registry,
        queues: frozenset[str],
        free: Callable[[], Mapping[str, int]],
        place_of: Callable[[Lane], str | None],
        idle: Callable[[], bool],
        may_claim: Callable[[], bool],
        take: Callable[[Sequence[Claimed], int], None],
        give_back: Callable[[Sequence[Held]], None],
    ) -> None:
        """`free` says how many more runs each place can take, `take` accepts what was claimed; `give_back` is told
        of all that is held, after a claim of which nobody knows whether it was made.
        """
        self._is_open = may_claim
        self._store = store
        self._clock = clock
        self._registry = registry
        self._queues = queues
        self._free = free
        self._place_of = place_of
        self._idle = idle
        self._take = take
        self._give_back = give_back
        self._in_doubt = False
        self._wake = asyncio.Event()
        self._after_lane = -1
        self._round = _Round()
        self._turn = 0
        self._lanes: Sequence[OpenLane] = ()
        self._shares: list[LaneShare] = []
        """What was planned last, of which lanes."""
        self._served_last: dict[str, str] = {}
        """The tenant that was served last at each place."""
        self._next_due_us: int | None = None
        self._waiting_since_s: float | None = None
        """Since when suspects wait for this worker to be idle."""
        self._alone_until_s: float | None = None
        """Until when nothing is claimed beside the suspects that execute."""
        self.backlog = False
        """Whether the last claim left ready runs behind, for want of room."""
        self.failing_since_s: float | None = None

    def wake(self) -> None:
        """There may be something to claim."""
        self._wake.set()

    @property
    def waits_for_idleness(self) -> bool:
        """Whether suspects wait until nothing is in flight."""
        return self._waiting_since_s is not None or self._alone_until_s is not None

    def due_at(self, due_us: int) -> None:
        """Something will be due then."""
        if self._next_due_us is None or due_us < self._next_due_us:
            self._next_due_us = due_us
            self._wake.set()

    async def serve(self, worker: Callable[[], int]) -> None:
        """Claim until cancelled. `worker` names the present incarnation."""
        pause_s = 0.05
        while True:
            self._wake.clear()
            try:
                if self._in_doubt:
                    await self._resolve_doubt(worker())
                again = self._may_claim() and await self._claim(worker())
                pause_s = 0.05
                self.failing_since_s = None
            except LineshaftError as error:
                if self.failing_since_s is None:
                    self.failing_since_s = self._clock.monotonic_s()
                    _log.warning("Claiming waits for the store: %s", error)
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
                continue
            if not again:
                await self._wait()

    async def _resolve_doubt(self, worker: int) -> None:
        """A claim that failed may have been made: what it took would be held, and never executed, while we live."""
        self._give_back(await self._store.held(worker))
        self._in_doubt = False

    def _may_claim(self) -> bool:
        if self._alone_until_s is not None:
            # Suspects execute with nothing beside them, so that a death can be laid at their door.
            left_s = self._alone_until_s - self._clock.monotonic_s()
            if not self._idle() and left_s > 0:
                self._look_again_in(left_s)
                return False
            self._alone_until_s = None
        if not any(free > 0 for free in self._free().values()):
            self.backlog = True  # whatever woke us is left behind
            return False
        return self._is_open()

    async def _claim(self, worker: int) -> bool:
        """Claim once; whether to claim again at once."""
        self._turn += 1
        idle = self._idle()
        free = self._free()
        now_s = self._clock.monotonic_s()
        waited_s = 0.0 if self._waiting_since_s is None else now_s - self._waiting_since_s
        self._shares = []
        request = ClaimRequest(
            worker=worker,
            now_us=self._clock.now_us(),
            plan=lambda lanes: self._plan(lanes, free),
            after_lane=self._after_lane,
            # A worker that is never idle takes them beside its work in the end: they are more likely innocent.
            idle=idle or waited_s > bounds.SUSPECTS_PATIENCE_S,
        )
        # Whatever happens now: until its runs are taken, nobody knows what this claim holds.
        self._in_doubt = True
        reply: ClaimReply = await self._store.claim(request)
        round_goes_on = self._round.goes_on(self._after_lane, reply)
        self._after_lane = self._goes_on_behind(reply)
        self._next_due_us = self._round.next_due_us
        self._attend_suspects(reply, idle, now_s)
        # What a place that is full would have got is left behind, though nobody looked.
        self.backlog = reply.more or any(room <= 0 for room in free.values())
        if reply.runs:
            self._take(reply.runs, worker)
        self._in_doubt = False
        # Beside suspects that were taken though the worker was not idle there may be other runs; and it may have become
        # idle while it asked.
        again = round_goes_on or (reply.suspects_wait and not idle and (bool(reply.runs) or self._idle()))
        return again and self._may_claim()

    def _goes_on_behind(self, reply: ClaimReply) -> int:
        """The lane behind which the next claim begins: each tenant is to come up as often as the others."""
        served = {run.lane.tenant for run in reply.runs}
        shares = [share for share in self._shares if share.lane.tenant in served]
        if self._after_lane < 0:
            for share in shares:
                self._served_last[self._place_of(share.lane) or ""] = share.lane.tenant
        elif reply.last_lane >= 0:
            last = served_up_to(self._lanes, shares, self._place_of)
            if last is not None:
                return last
        return reply.last_lane

    def _attend_suspects(self, reply: ClaimReply, idle: bool, now_s: float) -> None:
        if not reply.suspects_wait:
            self._waiting_since_s = None
        elif reply.runs:
            self._waiting_since_s = None
            if idle:
                self._alone_until_s = now_s + bounds.SUSPECTS_ALONE_S_MAX
                self._look_again_in(bounds.SUSPECTS_ALONE_S_MAX)
        else:
            if self._waiting_since_s is None:
                self._waiting_since_s = now_s
            self._look_again_in(1.0)

    def _look_again_in(self, pause_s: float) -> None:
        look_us = self._clock.now_us() + int(pause_s * 1_000_000)
        self._next_due_us = min(self._next_due_us or look_us, look_us)

    def _plan(self, lanes: Sequence[OpenLane], free: Mapping[str, int]) -> Sequence[LaneShare]:
        """Called by the store inside its transaction, on whatever thread that has."""
        if self._queues:
            lanes = [lane for lane in lanes if lane.lane.queue in self._queues]
        after = self._served_last if self._after_lane < 0 else None
        self._lanes = lanes
        self._shares = share_out(lanes, self._place_of, self._registry.gates, free, self._turn, after)
        return self._shares

    async def _wait(self) -> None:
        timeout_s = None
        if self._next_due_us is not None:
            timeout_s = max(0.0, (self._next_due_us - self._clock.now_us()) / 1_000_000) + 0.000_5
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            self._next_due_us = None
