"""The client process, seen from the harness: each method of `client.Client` is one here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

END_S_MAX: Final = 20.0


class ClientFailed(Exception):
    """The measured system, or our module for it, raised."""


class RemoteClient:
    """A client process while the block lasts. `python` is the one of the subject's environment."""

    def __init__(self, python: str, app: str, environment: Mapping[str, str], folder: Path) -> None:
        self._log = folder / "client.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.peers.client", app],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the harness, which then ends everything in order
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def submit_many(self, task: str, first: int, count: int) -> float:
        """Seconds that it took."""
        return float(self._ask("submit_many", task, first, count))

    def submit_each(self, first: int, count: int, seconds_max: float) -> list[float]:
        """Seconds that each took."""
        return list(self._ask("submit_each", first, count, seconds_max))

    def call_each(self, first: int, count: int, seconds_max: float) -> list[float]:
        """Seconds that each took."""
        return list(self._ask("call_each", first, count, seconds_max))

    def unfinished(self) -> int:
        """How many runs the system itself takes for unfinished."""
        return int(self._ask("unfinished"))

    def versions(self) -> dict[str, str]:
        """Of the system, and of what it stands on."""
        return dict(self._ask("versions"))

    def _ask(self, command: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([command, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise ClientFailed(f"{command}: {answer['error']}")
        return answer["answer"]

    def _last_words(self) -> str:
        """What the client said before it ended."""
        self._process.wait(END_S_MAX)
        return self._log.read_text(errors="replace")[-4_000:]
