"""Starting and ending the processes of `os_programs`, and checking what they were promised.

Every scenario has a folder with the store, the record and the log, and may wrap its processes in other programs
(`unshare`, `fiu-run`, `faketime`), each of which ends by becoming the program it was given.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.crash.os_record import Record, told
from tests.support import ROOT

PATIENCE_S = 60.0
"""How long anything is waited for; far more than it takes."""

QUERY = """
import json, sqlite3, sys
print(json.dumps(sqlite3.connect(sys.argv[1], uri=True).execute(sys.argv[2]).fetchall()))
"""


class Scenario:
    """Processes on one store, all of which end with the block.

    `inside` is a command that brings every program to where the store can be seen.
    """

    def __init__(self, folder: Path, store: Path | None = None, inside: Sequence[str] = ()) -> None:
        self.folder = folder
        self.store = store or folder / "store.db"
        self.inside = inside
        self.record = folder / "record"
        Record(self.record)
        self._processes = ExitStack()

    def __enter__(self) -> Scenario:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def start(
        self,
        role: str,
        name: str,
        *,
        inside: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a process, wrapped in a command of its own as well."""
        program = [sys.executable, "-m", "tests.crash.os_programs", role, name]
        given = [
            f"{option}={value if isinstance(value, str) else json.dumps(value)}"
            for option, value in options.items()
        ]
        ours = {
            "LINESHAFT_STORE": f"sqlite:///{self.store}",
            "OS_RECORD": str(self.record),
            "PYTHONPATH": str(ROOT),  # some wrappers change the directory
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*self.inside, *inside, *program, *given],
                cwd=ROOT,
                env={**os.environ, **ours, **(environment or {})},
                stdout=log,
                stderr=log,
            )
        self._processes.callback(end, process)
        return process

    def make_store(self, **given: Any) -> None:
        """Make the store, with the table of effects beside it."""
        assert self.start("maker", "maker", **given).wait(PATIENCE_S) == 0, self.log

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def told(self, what: str) -> list[list[Any]]:
        """What the processes told of one kind so far."""
        return list(told(self.record, what))

    def accepted(self) -> set[str]:
        """The runs that submitters were told are accepted."""
        return {run_id for _, runs in self.told("accepted") for run_id, _ in runs}

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition holds."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < deadline_s, f"never came\n{self.log[-3_000:]}"
            time.sleep(0.05)
        return found

    def succeeded(self, kind: str) -> int:
        """How many runs of a task are known to have succeeded."""
        return sum(each == kind for _, each in self.told("succeeded"))

    # What a store must hold in the end

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the store, as another program would."""
        command = [*self.inside, sys.executable, "-c", QUERY, f"{self.store.as_uri()}?mode=ro", query]
        answer = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True).stdout
        return [tuple(row) for row in json.loads(answer)]

    def all_succeeded(self) -> bool:
        """Whether every accepted run has succeeded, and nothing is left to do."""
        done = {run for (run,) in self.rows("SELECT id FROM lineshaft_run_history WHERE state = 'succeeded'")}
        return self.accepted() <= done and self.rows("SELECT count(*) FROM lineshaft_run") == [(0,)]

    def require_sound(self) -> None:
        """The file is sound, and each run of `book` that succeeded has exactly one row in the ledger."""
        assert self.rows("PRAGMA integrity_check") == [("ok",)]
        booked = self.rows("SELECT run FROM ledger ORDER BY run")
        assert booked == self.rows(
            "SELECT run.id FROM lineshaft_run_history AS run JOIN lineshaft_lane AS lane ON lane.id = run.lane"
            " WHERE lane.task = 'book' AND run.state = 'succeeded' ORDER BY run.id"
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Have it end in good order."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


def end(process: subprocess.Popen[bytes]) -> None:
    """End it at once, whatever it does."""
    process.kill()
    process.wait(PATIENCE_S)
