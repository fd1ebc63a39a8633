"""Who does what in a simulation: workers that die and come back, clients, and a nemesis; then rest."""

from __future__ import annotations

import asyncio
from contextvars import Context
from random import Random

from lineshaft import Concurrency
from tests.simulation.clients import Operator, Submitter
from tests.simulation.nemesis import Nemesis
from tests.simulation.world import Member, World

REST_S_MAX = 300.0
"""Virtual seconds within which everything comes to rest once nothing goes wrong any more."""


async def play(world: World) -> None:
    """The whole simulation."""
    cast = Cast(world)
    for _ in range(world.profile.workers):
        cast.start_worker()
    for number in range(world.profile.submitters):
        cast.start_submitter(number)
    cast.start_operator()
    nemesis = asyncio.ensure_future(Nemesis(world, cast).strike())
    while world.loop.time() < world.profile.active_s:
        await asyncio.sleep(0.5)
        world.sample()
    nemesis.cancel()
    await _rest(world, cast)


async def _rest(world: World, cast: Cast) -> None:
    """Nothing goes wrong any more: everything has to end."""
    world.history.add("calm")
    world.faults.calm = True
    cast.calm = True
    deadline_s = world.loop.time() + REST_S_MAX
    cast.start_worker()  # one that knows every task
    while world.unfinished() or cast.busy:
        if world.loop.time() > deadline_s:
            break
        await asyncio.sleep(1.0)
        world.sample()
    # Who waits hears of it at most a second later.
    await asyncio.sleep(1.0)
    world.history.add("rest", unfinished=world.unfinished(), waiting=sorted(cast.busy))


class Cast:
    """Starts processes, and starts them anew."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calm = False
        self.workers: list[Member] = []
        self.others: list[Member] = []
        self.busy: set[str] = set()
        """Clients that still want something."""
        self.known: list[str] = []
        """Ids of runs that were accepted."""
        self._number = 0
        self._random = Random(f"{world.seed}/cast")

    def start_worker(self) -> None:
        self._number += 1
        random = self._random
        lacks = frozenset({"rare"}) if not self.calm and random.random() < 0.7 else frozenset[str]()
        member = self.world.member(f"worker {self._number}", random, lacks=lacks)
        self.workers.append(member)
        member.process.at_death(lambda: self._replace(member))
        self.world.run(member, self._work)

    def _replace(self, member: Member) -> None:
        self.workers.remove(member)
        pause_s = self._random.choice((0.05, 0.5, 1.5))
        self.world.loop.call_later(pause_s, self._start_instead, context=Context())

    def _start_instead(self) -> None:
        # Once there is calm, one that knows every task has to be there.
        if self.calm or len(self.workers) < self.world.profile.workers:
            self.start_worker()

    async def _work(self, member: Member) -> None:
        profile = self.world.profile
        concurrency = Concurrency(on_loop=profile.on_loop, threads=profile.threads)
        async with member.app.worker(lease=profile.lease_s, concurrency=concurrency, grace=0.5):
            await member.stop.wait()
            self.world.history.add("drains")
        self.world.history.add("left")
        await member.app.close()

    def start_submitter(self, number: int) -> None:
        random = Random(f"{self.world.seed}/submitter {number}")
        member = self.world.member(f"submitter {number}", random)
        self.others.append(member)
        client = Submitter(self, member, random)
        self.world.run(member, client.submit_all)

    def start_operator(self) -> None:
        random = Random(f"{self.world.seed}/operator")
        member = self.world.member("operator", random)
        self.others.append(member)
        self.world.run(member, Operator(self, random).operate)
