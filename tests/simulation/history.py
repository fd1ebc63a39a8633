"""What happened in one simulation, in the order in which it did: plain values, for a checker that knows no engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from lineshaft.testing.processes import present_process

Event = dict[str, Any]


class History:
    """Gathers events, and a digest of them and of every step of the loop: equal digests are equal histories."""

    def __init__(self, *, keep_steps: bool = False) -> None:
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.steps: list[str] | None = [] if keep_steps else None
        self.time: Callable[[], float] = lambda: 0.0
        self._digest = blake2b(digest_size=12)

    def add(self, kind: str, **fields: Any) -> Event:
        """Something happened in the present process."""
        process = present_process()
        event = {
            "kind": kind,
            "at_s": round(self.time(), 6),
            "process": process.name if process else "",
            **fields,
        }
        self.events.append(event)
        self.counts[kind] += 1
        self.step(json.dumps(event, default=str))
        return event

    def step(self, line: str) -> None:
        self._digest.update(line.encode())
        if self.steps is not None:
            self.steps.append(line)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()
