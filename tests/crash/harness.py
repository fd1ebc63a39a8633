"""The crash harness: one store on a real file, real processes on it, the world outside, and the check at the end.

    async with Site(folder) as site:
        await site.submit(counts)            from this process, in its own way
        with site.worker("--lease", "1"):    or with a point at which it is killed: site.worker("--arm", POINT)
            ...
        await site.finish()                  a worker in this process does what is left
    assert site.violations() == []

The site's worker of last resort is in this process; everything that dies or stops is a process of its own.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from lineshaft import Run
from tests.crash import checker, workload
from tests.crash.sink import Sink
from tests.crash.trail import Trail
from tests.support import Program, address, eventually

FINISH_S_MAX = 90.0
"""How long all that was accepted may take to end once nothing is killed any more: many times what it takes."""


class Site:
    """A folder with a store, and what happens there. The processes inherit its environment."""

    def __init__(self, folder: Path, *, history: str = workload.HISTORY) -> None:
        self.folder = folder
        self.sink = Sink()
        self._environment = {
            "LINESHAFT_STORE": address(folder),
            "PROGRAM_FOLDER": str(folder),
            "WORKLOAD_SINK": self.sink.address,
            "WORKLOAD_HISTORY": history,
        }
        self._before: dict[str, str | None] = {}

    async def __aenter__(self) -> Site:
        self._before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        self.sink.__enter__()
        await workload.app.__aenter__()
        connection = workload.app.connect()
        connection.executescript(workload.LEDGER)
        connection.commit()
        connection.close()
        self.trail = Trail(self.folder, workload.app.connect)
        return self

    async def __aexit__(self, *_: object) -> None:
        await workload.app.close()
        self.sink.__exit__()
        self.trail.close()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    # Processes

    def worker(self, *arguments: str, history: str = "") -> Program:
        """A worker in a process of its own, which starts when the block is entered, and is killed at its end."""
        environment = {"WORKLOAD_HISTORY": history} if history else {}
        return Program(self.folder, *arguments, module="tests.crash.worker", **environment)

    def submitter(self, name: str, *arguments: str) -> Program:
        return Program(self.folder, name, *arguments, module="tests.crash.submitter")

    def is_up(self, program: Program) -> bool:
        """Whether a process has come as far as its work."""
        path = self.folder / "up.txt"
        assert program.process is not None
        return path.exists() and str(program.process.pid) in path.read_text().split()

    @property
    def reached(self) -> list[str]:
        """The armed points at which a process has died or stopped."""
        path = self.folder / "reached.txt"
        return [line.rpartition(" ")[0] for line in path.read_text().splitlines()] if path.exists() else []

    # What this process does

    async def submit(self, counts: Mapping[str, int], name: str = "site") -> list[Run[object]]:
        """Submit so many operations of each kind, and put down that they were accepted."""
        handles = []
        lines = []
        for kind, count in counts.items():
            ops = [f"{kind}/{name}/{number}" for number in range(count)]
            for op in ops:
                run = await workload.KINDS[kind].task.submit(*workload.arguments(kind, op))
                handles.append(run)
                lines.append(f"{op} {run.id}\n")
        with (self.folder / "accepted.txt").open("a") as file:
            file.writelines(lines)
        return handles

    async def finish(self) -> None:
        """Let a worker in this process do what is left, until no run is unfinished; then gather what happened."""
        async with workload.app.worker(lease=10, grace=5):
            await self.until_empty()
        self.gather()

    async def until_empty(self) -> None:
        """Until everything that was submitted has ended."""
        try:
            await eventually(
                lambda: not self.rows("SELECT 1 FROM lineshaft_run LIMIT 1"), patience_s=FINISH_S_MAX
            )
        except AssertionError as error:
            raise AssertionError(f"Runs do not end: {self._unfinished()}\n{self.log[-4_000:]}") from error

    def _unfinished(self) -> dict[str, list[tuple[object, ...]]]:
        """What is left, by where it stands, and the workers that are there."""
        return {
            "state, worker, suspect, count": self.rows(
                "SELECT state, worker, suspect, count(*) FROM lineshaft_run GROUP BY state, worker, suspect"
            ),
            "workers": self.rows("SELECT id, pid, expires_boot_us FROM lineshaft_worker"),
        }

    def gather(self) -> None:
        self.trail.gather(self.sink.take())

    # What is to be seen

    def rows(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """What a query finds in the store."""
        connection: sqlite3.Connection = workload.app.connect()
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def execute(self, statement: str) -> int:
        """Change something in the store; how many rows."""
        connection: sqlite3.Connection = workload.app.connect()
        try:
            changed = connection.execute(statement).rowcount
            connection.commit()
        finally:
            connection.close()
        return changed

    @property
    def accepted(self) -> int:
        """How often a submitter was told that an operation is accepted."""
        path = self.folder / "accepted.txt"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    @property
    def kinds_accepted(self) -> set[str]:
        """The kinds of work of which something was accepted."""
        path = self.folder / "accepted.txt"
        return {line.partition("/")[0] for line in path.read_text().splitlines()} if path.exists() else set()

    def violations(self) -> list[str]:
        return checker.violations(self.trail, self.folder / "store.db")

    def tally(self) -> dict[str, dict[str, int]]:
        return checker.tally(self.trail)

    def ended(self, state: str = "succeeded") -> int:
        """How many runs ended like that."""
        return sum(states.get(state, 0) for states in self.tally().values())

    def calls(self) -> list[tuple[str, int]]:
        """The calls outside so far: the operation, and the process that made it."""
        self.gather()
        return self.trail.rows.execute("SELECT op, pid FROM calls ORDER BY rowid").fetchall()

    def release(self) -> None:
        """Let everything end that holds on until then."""
        (self.folder / "released").touch()

    @property
    def log(self) -> str:
        """What the processes had to say."""
        path = self.folder / "program.log"
        return path.read_text(errors="replace") if path.exists() else ""
