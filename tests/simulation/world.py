"""One simulation: processes on one machine and one file, everything recorded, from the first start to rest."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from lineshaft import App
from lineshaft.core.errors import LineshaftError
from lineshaft.core.host import Host
from lineshaft.engine.task import Task
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.testing.loop import SimulationLoop
from lineshaft.testing.machine import Machine
from lineshaft.testing.processes import Process, SimulatedClock
from tests.simulation import tasks
from tests.simulation.faults import Faults, FaultyStore
from tests.simulation.history import Event, History
from tests.simulation.observed import OBSERVED
from tests.simulation.profile import Profile, draw
from tests.simulation.stage import Play

STEPS_MAX = 1_000_000
"""A simulation takes some ten thousand; this ends one that goes round in circles."""
MEMORY = Path("/dev/shm")


@dataclass
class Record:
    """What a simulation leaves to be judged. The file is there until the simulation's block ends."""

    seed: int
    profile: Profile
    events: list[Event]
    digest: str
    steps: list[str] | None
    steps_taken: int
    virtual_s: float
    file: Path


@dataclass(eq=False)
class Member:
    """A process with an app in it."""

    process: Process
    clock: SimulatedClock
    host: Host
    app: App
    tasks: dict[str, Task[Any, Any]]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where it is told to end in order."""


@cache
def declared() -> dict[str, Task[Any, Any]]:
    """The tasks, declared once: their codecs take longer to build than a simulation to run."""
    found = tasks.declare(App("simulated"))
    for task in found.values():
        task.declaration.build()
    return found


@cache
def empty_store() -> bytes:
    """A store without runs, with the tables that bodies write to."""
    with _folder() as folder:
        path = folder / "store.db"
        asyncio.run(SqliteStore(path).close())
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE ledger (run_id TEXT, work INTEGER, visit INTEGER)")
        connection.execute("CREATE TABLE orders (operation INTEGER)")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return path.read_bytes()


class World:
    """Where a simulation takes place."""

    def __init__(self, seed: int, folder: Path, profile: Profile, *, keep_steps: bool = False) -> None:
        self.seed = seed
        self.profile = profile
        self.path = folder / "store.db"
        self.path.write_bytes(empty_store())
        self.history = History(keep_steps=keep_steps)
        self.loop = SimulationLoop(
            seed, disorder=profile.disorder, steps_max=STEPS_MAX, trace=self.history.step
        )
        self.loop.set_exception_handler(self._unexpected)
        self.history.time = self.loop.time
        self.faults = Faults(profile, Random(f"{seed}/faults"), self.history)
        self.machine = Machine(self.loop, seed=seed, delivery=self.faults.delivery)
        self.look = sqlite3.connect(self.path, isolation_level=None)
        self.look.execute("PRAGMA query_only = ON")
        self.play = Play(self.loop, self.history, self.look)
        self.unexpected: list[str] = []

    # Processes

    def member(self, name: str, random: Random, *, lacks: frozenset[str] = frozenset()) -> Member:
        """A new process, which knows all tasks but those that it lacks."""
        process = self.machine.process(name)
        host = self.machine.host(
            offset_s=random.choice((-1, 0, 1)) * self.profile.skew_s,
            drift=random.choice((-1, 0, 1)) * self.profile.drift,
        )
        clock = host.clock
        assert isinstance(clock, SimulatedClock)
        app = App("simulated", host=host)
        known = {task: each for task, each in declared().items() if task not in lacks}
        for each in known.values():
            app.registry.add(each.declaration)
        handles = {task: Task(each, each.declaration, lambda: app.runtime) for task, each in known.items()}
        self.history.add("started", name=name, lacks=sorted(lacks))
        process.at_death(lambda: self._died(process))
        member = self.play.members[name] = Member(process, clock, host, app, handles)
        return member

    def open(self, member: Member) -> None:
        """Open a member's store; called in its process, to which the store's threads then belong."""
        surroundings = self.machine.surroundings(member.process, self.faults.connect)
        store: Any = SqliteStore(self.path, member.host.clock, surroundings)
        member.app._store = FaultyStore(store, self.faults, self._observed)  # type: ignore[assignment]

    def run(self, member: Member, work: Callable[[Member], Coroutine[Any, Any, None]]) -> None:
        """Run a member until it ends, or an error of the store ends it."""

        async def live() -> None:
            try:
                self.open(member)
                await work(member)
            except (LineshaftError, sqlite3.Error) as error:
                self.history.add("gave up", name=member.process.name, error=type(error).__name__)
            member.process.kill()
            await self.loop.create_future()

        member.process.run(live())

    def _died(self, process: Process) -> None:
        workers = self.machine.workers_of(process)
        held = self.look.execute(
            f"SELECT worker, id, suspect FROM lineshaft_run WHERE worker IN ({','.join(map(str, workers))})"
            " ORDER BY worker, id"
        ).fetchall()
        self.history.add(
            "died", name=process.name, workers=workers, held=held, midway=process.died is not None
        )

    # What is seen

    def _observed(self, call: str, args: tuple[Any, ...], answer: Any) -> None:
        observe = OBSERVED.get(call)
        fields = None if observe is None else observe(args, answer)
        if fields is None:
            return
        if call == "claim":
            rows = self.look.execute("SELECT id FROM lineshaft_worker ORDER BY id").fetchall()
            fields["registered"] = [row[0] for row in rows]
        self.history.add(call, **fields)

    def sample(self) -> None:
        """Look at what has ended, and at keys that are held."""
        ended = self.look.execute("SELECT id, state, result, fence FROM lineshaft_run_history ORDER BY id")
        held = self.look.execute(
            "SELECT lane.task, lane.tenant, run.key, count(*) FROM lineshaft_run AS run"
            " JOIN lineshaft_lane AS lane ON lane.id = run.lane WHERE run.key IS NOT NULL"
            " GROUP BY 1, 2, 3 HAVING count(*) > 1"
        )
        self.history.add("sample", ended=ended.fetchall(), doubled=held.fetchall())

    def unfinished(self) -> int:
        row = self.look.execute("SELECT count(*) FROM lineshaft_run").fetchone()
        return int(row[0])

    def _unexpected(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody caught."""
        self.unexpected.append(f"{context.get('message')}: {context.get('exception')!r}")

    # The end

    def close(self) -> None:
        self.machine.close()
        self.play.members.clear()
        self.look.close()


@contextmanager
def simulation(
    seed: int,
    script: Callable[[World], Coroutine[Any, Any, None]],
    *,
    profile: Profile | None = None,
    keep_steps: bool = False,
) -> Iterator[Record]:
    """Run a seed, and keep its file while the block lasts."""
    with _folder() as folder, _alone():
        world = World(seed, folder, profile or draw(seed), keep_steps=keep_steps)
        tasks.stages.present = world.play
        try:
            world.loop.run_until_complete(script(world))
            for text in world.unexpected:
                world.history.add("unexpected", text=text)
            record = Record(
                seed,
                world.profile,
                world.history.events,
                world.history.digest,
                world.history.steps,
                world.loop.steps,
                world.loop.time(),
                world.path,
            )
        finally:
            world.close()
        yield record


@contextmanager
def _alone() -> Iterator[None]:
    """Neither the collection of garbage nor a log comes between; what was there before is not collected."""
    level = logging.getLogger("lineshaft").level
    logging.getLogger("lineshaft").setLevel(logging.CRITICAL + 1)
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.getLogger("lineshaft").setLevel(level)


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="lineshaft-") as name:
        yield Path(name)
