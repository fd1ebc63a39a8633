"""A stage: a fresh place for one measurement, with its server, its marks and its processes.

Everything lies in one folder on the disk of the checkout, which goes with the stage, and nothing outlives it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.peers import contract, marks
from benchmarks.peers.marks import Marks
from benchmarks.peers.processes import Workers
from benchmarks.peers.redis import RedisServer, find_server
from benchmarks.peers.remote import RemoteClient
from benchmarks.peers.subject import Server, Subject

ROOT: Final = Path(__file__).parents[2]
MARKS: Final = 1 << 20
SHARED_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Place:
    """Where environments and stages lie."""

    environments: Path
    work: Path

    def python(self, environment: str) -> str:
        """The interpreter of an environment; Lineshaft's own is the one that runs this."""
        if environment == "lineshaft":
            return sys.executable
        found = self.environments / environment / "bin" / "python"
        if not found.exists():
            raise FileNotFoundError(f"{environment} is not installed. `make bench-peers` installs it.")
        return str(found)


class Stage:
    """A place for one measurement of one subject, while the block lasts.

    `frozen` is a folder that an earlier stage was frozen into: this one then begins with what was in it.
    """

    def __init__(
        self,
        place: Place,
        subject: Subject,
        settings: Mapping[str, Any] | None = None,
        frozen: Path | None = None,
    ) -> None:
        self.subject = subject
        self.settings = dict(subject.settings if settings is None else settings)
        self._place = place
        self._frozen = frozen
        self._owned = ExitStack()
        self._running = ExitStack()
        self._server: RedisServer | None = None
        self._client: RemoteClient | None = None
        self._versions: dict[str, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as owned:
            self._place.work.mkdir(parents=True, exist_ok=True)
            name = owned.enter_context(tempfile.TemporaryDirectory(prefix="stage-", dir=self._place.work))
            self._folder = Path(name)
            self._data = self._folder / "data"
            if self._frozen:
                shutil.copytree(self._frozen, self._data)
            else:
                self._data.mkdir()
            self._marks_file = owned.enter_context(
                tempfile.NamedTemporaryFile(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else self._folder)
            )
            self.marks = Marks(Path(self._marks_file.name), MARKS)
            owned.callback(self.marks.close)
            owned.enter_context(self._running)
            if self.subject.server:
                fsync = self.subject.server is Server.REDIS_FSYNC
                server = RedisServer(find_server(self._place.environments), self._data, fsync=fsync)
                self._server = self._running.enter_context(server)
            self._owned = owned.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.__exit__(kind, error, trace)

    @property
    def _environment(self) -> dict[str, str]:
        """What the subject's processes find in their environment."""
        return {
            **{name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
            "PYTHONPATH": str(ROOT),
            marks.ENVIRONMENT: self._marks_file.name,
            contract.STORE: self._server.address if self._server else str(self._data / "store.db"),
            contract.SETTINGS: json.dumps(self.settings),
        }

    def client(self) -> RemoteClient:
        """The submitting process; started when first asked for."""
        if self._client is None:
            python = self._place.python(self.subject.environment)
            client = RemoteClient(python, self.subject.app, self._environment, self._folder)
            self._client = self._running.enter_context(client)
            self._versions = self._client.versions()
        return self._client

    def workers(self) -> Workers:
        """The worker processes; they start where a block with them begins."""
        python = self._place.python(self.subject.environment)
        commands = [[python, *arguments] for arguments in self.subject.workers]
        return Workers(commands, self._environment, self._folder)

    @property
    def versions(self) -> dict[str, str]:
        """Of everything that takes part; known once there is a client."""
        server = {"redis-server": self._server.version} if self._server else {}
        return {**self._versions, **server}

    def freeze(self, folder: Path) -> None:
        """Keep what the system has stored, for other stages to begin with; its processes end."""
        if self._server:
            self._server.save()
        self._running.close()
        shutil.copytree(self._data, folder)

    def logs(self) -> str:
        """The last words of all processes."""
        tails = (path.read_text(errors="replace")[-2_000:] for path in sorted(self._folder.glob("*.log")))
        return "\n".join(tails)
