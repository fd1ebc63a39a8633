"""The nemesis: kills, stops and ends processes at random moments, and starts them again. Seeded."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.support import Program

KILL, STOP, DRAIN = "kill -9", "stopped past the lease", "SIGTERM"
DEEDS = {KILL: 5, STOP: 2, DRAIN: 2}
"""What it does, and how often of the sum of them."""


LEFT_ALONE_S_MAX = 30
"""Seconds for which one that starts is left alone, however long it takes."""


class Nemesis:
    """Haunts some processes, several at once now and then. `spared` are only ever stopped, and go on.

    `pause_s` is how long it leaves them alone, on average, between two deeds. One that is started again is mostly
    left alone until `is_up`: on a busy machine that takes long, and without it nothing would get done.
    """

    def __init__(
        self,
        seed: int,
        victims: Sequence[Program],
        *,
        is_up: Callable[[Program], bool],
        spared: Sequence[Program] = (),
        lease_s: float,
        pause_s: float,
    ) -> None:
        self._chance = random.Random(f"nemesis {seed}")
        self._victims = list(victims)
        self._spared = list(spared)
        self._is_up = is_up
        self._lease_s = lease_s
        self._pause_s = pause_s
        self._busy: set[Program] = set()
        self.deeds: Counter[str] = Counter()
        self.dead_by_themselves: list[int] = []
        """How processes ended that nobody here had ended."""

    async def haunt(self) -> None:
        """Until cancelled; then everything that was stopped goes on."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self._chance.expovariate(1 / self._pause_s))
                free = [each for each in (*self._victims, *self._spared) if each not in self._busy]
                # One is always left alone, or nothing would get done.
                if len(free) > 1:
                    victim = self._chance.choice(free)
                    self._busy.add(victim)
                    group.create_task(self._visit(victim))

    async def _visit(self, victim: Program) -> None:
        try:
            if not victim.alive:
                assert victim.process is not None
                self.dead_by_themselves.append(victim.process.returncode)
                victim.start()
                return
            [deed] = self._chance.choices(list(DEEDS), list(DEEDS.values()))
            if victim in self._spared:
                deed = STOP
            self.deeds[deed] += 1
            if deed == STOP:
                await self._stop(victim)
            else:
                await self._end(victim, deed)
        finally:
            self._busy.discard(victim)

    async def _stop(self, victim: Program) -> None:
        victim.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._lease_s * (0.5 + 2.5 * self._chance.random()))
        finally:
            with suppress(ProcessLookupError):
                victim.send(signal.SIGCONT)

    async def _end(self, victim: Program, deed: str) -> None:
        assert victim.process is not None
        victim.send(signal.SIGKILL if deed == KILL else signal.SIGTERM)
        # Now and then it dies of the one while it obeys the other.
        if deed == DRAIN and self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.random())
            with suppress(ProcessLookupError):
                victim.send(signal.SIGKILL)
        await asyncio.to_thread(victim.wait)
        await asyncio.sleep(self._chance.random() * self._pause_s)
        victim.start()
        if self._chance.random() < 0.8:
            for _ in range(LEFT_ALONE_S_MAX * 20):
                if self._is_up(victim) or not victim.alive:
                    break
                await asyncio.sleep(0.05)
