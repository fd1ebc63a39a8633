"""What kills, stalls, drains and misleads processes, as the profile says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.script import Cast
    from tests.simulation.world import Member, World

STEPS_TO_LIVE_MAX = 300
STALL_LEASES_MAX = 2.0


class Nemesis:
    """Strikes until it is cancelled."""

    def __init__(self, world: World, cast: Cast) -> None:
        self._world = world
        self._cast = cast
        self._random = Random(f"{world.seed}/nemesis")

    async def strike(self) -> None:
        profile = self._world.profile
        await asyncio.gather(
            self._every(profile.kill_every_s, self._kill),
            self._every(profile.stall_every_s, self._stall),
            self._every(profile.drain_every_s, self._drain),
            self._every(profile.clock_steps_every_s, self._set_clock),
        )

    async def _every(self, mean_s: float, strike: Callable[[], None]) -> None:
        while mean_s:
            await asyncio.sleep(self._random.expovariate(1 / mean_s))
            strike()

    def _victim(self) -> Member | None:
        alive = [member for member in self._cast.workers if member.process.alive]
        if self._random.random() < 0.1:
            alive = [member for member in self._cast.others if member.process.alive]
        return self._random.choice(alive) if alive else None

    def _kill(self) -> None:
        victim = self._victim()
        if victim is None:
            return
        if self._random.random() < self._world.profile.countdown:
            victim.process.dies_in = self._random.randint(1, STEPS_TO_LIVE_MAX)
        else:
            self._world.history.add("killed", name=victim.process.name)
            victim.process.kill()

    def _stall(self) -> None:
        victim = self._victim()
        if victim is not None:
            seconds = self._random.uniform(0.1, STALL_LEASES_MAX * self._world.profile.lease_s)
            self._world.history.add("stalled", name=victim.process.name, seconds=seconds)
            victim.process.stall(seconds)

    def _drain(self) -> None:
        victim = self._victim()
        if victim is not None:
            victim.stop.set()

    def _set_clock(self) -> None:
        victim = self._victim()
        if victim is not None:
            seconds = self._random.choice((-20.0, -5.0, -0.5, 0.5, 5.0, 20.0))
            self._world.history.add("clock set", name=victim.process.name, seconds=seconds)
            victim.clock.step(seconds)
