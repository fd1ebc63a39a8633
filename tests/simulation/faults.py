"""What goes wrong between the engine and its file: at the store's port, and at SQLite's own interface.

An error may come before anything was done, or after all of it was (the reply is lost, and who asked does not
know). Both layers record what they did, and the lower one what the store really answered.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from lineshaft.core.errors import StoreUnavailable
from lineshaft.store.sqlite.connection import OwnConnection, open_connection
from lineshaft.testing.processes import Process
from tests.simulation.history import History
from tests.simulation.profile import Profile

Observe = Callable[[str, tuple[Any, ...], Any], None]
"""Hears of every call of the port before it is made ("settle asked") and of what the store answered ("settle")."""


class Faults:
    """Draws what fails, for all processes of a simulation, until there is calm."""

    def __init__(self, profile: Profile, random: Random, history: History) -> None:
        self.profile = profile
        self.calm = False
        self._random = random
        self._history = history

    def _comes(self, chance: float) -> bool:
        return not self.calm and chance > 0 and self._random.random() < chance

    def _tell(self, fault: str, **fields: Any) -> None:
        self._history.add("fault", fault=fault, **fields)

    # At the port

    def refuses(self, call: str) -> bool:
        if not self._comes(self.profile.refused):
            return False
        self._tell("refused", call=call)
        return True

    def loses_reply(self, call: str) -> bool:
        if not self._comes(self.profile.reply_lost):
            return False
        self._tell("reply lost", call=call)
        return True

    def delays(self, call: str) -> float:
        if not self._comes(self.profile.late):
            return 0.0
        self._tell("late", call=call)
        return self._random.choice((0.001, 0.05, 0.5, 3.0))

    # At SQLite

    def before(self, statement: str) -> sqlite3.OperationalError | None:
        """The error with which a statement is refused."""
        if statement.startswith("COMMIT"):
            chance = self.profile.commit_fails
        elif statement.startswith(("ROLLBACK", "PRAGMA", "SAVEPOINT", "RELEASE")):
            return None
        else:
            chance = self.profile.statement_fails
        if not self._comes(chance):
            return None
        self._tell("commit fails" if statement.startswith("COMMIT") else "statement fails")
        return _error(
            self._random.choice(
                ("SQLITE_IOERR", "SQLITE_FULL", "SQLITE_BUSY", "SQLITE_NOMEM", "SQLITE_CORRUPT")
            )
        )

    def after(self, statement: str) -> sqlite3.OperationalError | None:
        """The error that is reported for a commit that was made."""
        if not statement.startswith("COMMIT") or not self._comes(self.profile.commit_ambiguous):
            return None
        self._tell("commit ambiguous", lent="lineshaft" in statement)
        return _error("SQLITE_IOERR")

    # Between processes

    def delivery(self, process: Process, news: Any) -> float | None:
        if self._comes(self.profile.poke_lost):
            self._tell("poke lost", to=process.name, news=int(news))
            return None
        if self._comes(self.profile.poke_late):
            self._tell("poke late", to=process.name, news=int(news))
            return self._random.choice((0.01, 0.2, 2.0))
        return 0.0

    def connect(self, path: Path) -> OwnConnection:
        connection = open_connection(path, FailingConnection)
        assert isinstance(connection, FailingConnection)
        connection.faults = self
        return connection


def _error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(f"simulated {name}")
    error.sqlite_errorname = name
    return error


class FailingConnection(OwnConnection):
    """A connection on which statements fail as a simulation says; opening it does not."""

    faults: Faults | None = None

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if self.faults is None:
            return super().execute(statement, *parameters)
        error = self.faults.before(statement)
        if error is not None:
            raise error
        cursor = super().execute(statement, *parameters)
        error = self.faults.after(statement)
        if error is not None:
            raise error
        return cursor


class FaultyStore:
    """The store's port as one process meets it."""

    def __init__(self, store: Any, faults: Faults, observe: Observe) -> None:
        self._store = store
        self._faults = faults
        self._observe = observe

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if asyncio.iscoroutinefunction(found) and name != "close":
            return partial(self._called, name, found)
        return found

    async def _called(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        if self._faults.refuses(name):
            raise StoreUnavailable(f"Simulated: {name} was refused.")
        await self._pause(name)
        self._observe(f"{name} asked", args, None)
        answer = await call(*args)
        self._observe(name, args, answer)
        if self._faults.loses_reply(name):
            raise StoreUnavailable(f"Simulated: the reply to {name} was lost.")
        await self._pause(name)
        return answer

    async def _pause(self, name: str) -> None:
        pause_s = self._faults.delays(name)
        if pause_s:
            await asyncio.sleep(pause_s)

    def beat(self, worker: int, lease_us: int) -> bool:
        if self._faults.refuses("beat"):
            raise StoreUnavailable("Simulated: the heartbeat was refused.")
        self._observe("beat asked", (worker, lease_us), None)
        held: bool = self._store.beat(worker, lease_us)
        self._observe("beat", (worker, lease_us), held)
        if self._faults.loses_reply("beat"):
            raise StoreUnavailable("Simulated: the reply to the heartbeat was lost.")
        return held

    @asynccontextmanager
    async def transaction(self, *args: Any) -> AsyncIterator[Any]:
        if self._faults.refuses("transaction"):
            raise StoreUnavailable("Simulated: the transaction was refused.")
        await self._pause("transaction")
        async with self._store.transaction(*args) as lent:
            release = lent.release

            def observed(outcomes: Any) -> Any:
                self._observe("release asked", (outcomes,), None)
                kept = release(outcomes)
                self._observe("release", (outcomes,), kept)
                return kept

            lent.release = observed
            yield lent
