"""What every measured system is asked to do, and how its settings reach it.

The modules in `apps` keep this contract. They are imported in the system's own environment, by its workers and by
`client.py`, so this module and those that it needs import nothing beyond the standard library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Final, Protocol

SETTINGS: Final = "BENCH_SETTINGS"
STORE: Final = "BENCH_STORE"

WORK_S: Final = 0.01
"""How long the task `work` takes."""
RESULT_S_MAX: Final = 30.0
"""How long a result is waited for."""


class MeasuredApp(Protocol):
    """One system under measurement.

    It has two tasks. `noop` marks its number and returns it. `work` waits for `WORK_S` first, so that a worker that
    is killed is killed within many of them; the mark at its end says that it came to its end.
    """

    packages: Sequence[str]
    """Distributions whose versions belong to the result."""

    async def open(self) -> None:
        """Connect, and make tables and queues where they are missing."""

    async def submit(self, number: int) -> None:
        """Submit one `noop`; return once it is accepted."""

    async def submit_many(self, task: str, numbers: range) -> None:
        """Submit a run for each number the fastest way that the system offers."""

    async def call(self, number: int) -> int:
        """Submit one `noop`, and wait for its result."""

    async def unfinished(self) -> int:
        """How many runs the system holds that are not finished, as far as it knows itself."""

    async def close(self) -> None:
        """Disconnect."""


def settings() -> dict[str, Any]:
    """The settings of the subject under measurement: those that the results show are those that apply."""
    found: dict[str, Any] = json.loads(os.environ[SETTINGS])
    return found


def store() -> str:
    """Where the system keeps its runs: the address of a server, or the path of a file."""
    return os.environ[STORE]
