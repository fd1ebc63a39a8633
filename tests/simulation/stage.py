"""What bodies do and have done: the work that they are given, and their visits."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lineshaft import Context
from lineshaft.testing.loop import SimulationLoop
from lineshaft.testing.processes import Process, present_process
from tests.simulation.history import History
from tests.simulation.tasks import Act

_RUNNING = """
SELECT count(*) FROM lineshaft_run AS run JOIN lineshaft_lane AS lane ON lane.id = run.lane
WHERE run.state = 'running' AND lane.task = ?1 AND (?2 IS NULL OR lane.tenant = ?2)
"""

FOLLOWERS = 1_000_000
"""Work that a body submits has the number of its own work and this."""


class Visit:
    """One call of a body."""

    def __init__(self, history: History, number: int) -> None:
        self.number = number
        self._history = history
        self._ended = False

    def ends(self, how: str) -> None:
        if not self._ended:
            self._ended = True
            self._history.add("body ends", visit=self.number, how=how)


class Play:
    """The `tasks.Stage` of one simulation."""

    def __init__(self, loop: SimulationLoop, history: History, look: sqlite3.Connection) -> None:
        self.members: dict[str, Any] = {}
        """The processes by their names, with their hosts and tasks."""
        self._loop = loop
        self._history = history
        self._look = look
        self._acts: dict[int, Sequence[Act]] = {}
        self._visits: Counter[int] = Counter()
        self._visit = 0
        self._work = 0

    def new_work(self, acts: Sequence[Act]) -> int:
        """The number of new work, with what its bodies will do, attempt by attempt."""
        self._work += 1
        self._acts[self._work] = acts
        return self._work

    def follow_up(self, work: int) -> int:
        follower = FOLLOWERS + work
        self._acts.setdefault(follower, [Act(0.01, "return")])
        return follower

    def act(self, work: int, attempt: int) -> Act:
        acts = self._acts[work]
        if any(act.end == "die" for act in acts):
            # Crashes charge no attempt: what dies counts its visits.
            attempt = self._visits[work]
        return acts[min(attempt, len(acts)) - 1]

    def enter(self, kind: str, works: Sequence[int], ctx: Context | None) -> Visit:
        self._visit += 1
        self._visits.update(works)
        member = self.members[_here().name]
        fields: dict[str, Any] = {}
        if ctx is not None:
            fields = {"run": ctx.run_id, "attempt": ctx.attempt, "key": ctx.idempotency_key}
            if kind in ("limited", "tenant_limited"):
                tenant = ctx.tenant if kind == "tenant_limited" else None
                fields["running"] = self._look.execute(_RUNNING, (kind, tenant)).fetchone()[0]
        wall_us = member.host.clock.now_us()
        self._history.add(
            "body begins", task=kind, works=list(works), visit=self._visit, wall_us=wall_us, **fields
        )
        return Visit(self._history, self._visit)

    def submit(self, kind: str) -> Any:
        return self.members[_here().name].tasks[kind]

    def block(self, seconds: float) -> None:
        self._loop.threading.sleep(seconds)

    def die(self) -> None:
        self._history.add("killed by its run")
        _here().kill()

    async def gone(self) -> None:
        await self._loop.create_future()

    def block_for_good(self) -> None:
        self._loop.threading.event().wait()


def _here() -> Process:
    process = present_process()
    assert process is not None
    return process
