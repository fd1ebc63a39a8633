"""kill -9 at each armed point: one terminal state, effects once, whatever was under way (FAILURES row 1)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.crash import points
from tests.crash.harness import Site
from tests.crash.points import LEAVER, PRUNER, RESCUER, SUBMITTER, WORKER
from tests.support import Program, eventually

MIX = {
    "calls": 12,
    "calls_async": 6,
    "calls_once": 6,
    "calls_again": 4,
    "calls_limited": 6,
    "books": 12,
    "books_async": 6,
    "books_many": 40,
    "books_again": 4,
    "books_and_submits": 8,
    "carries": 3,
    "is_late": 1,
    "is_poison": 4,
}
SUCCEEDED_MIN = 100
"""Of 107 that can, with the children of `books_and_submits`; at-most-once work may have an unknown outcome."""
SUBMITTED_MIN = 50
"""Of the 80 of a submitter's mix, of which one in twenty is to fail."""


async def killed(program: Program) -> None:
    """It dies by the signal, not by any error."""
    assert await asyncio.to_thread(program.wait) == -signal.SIGKILL, program.log


async def at_work(site: Site, point: str) -> None:
    await site.submit(MIX)
    with site.worker("--lease", "1", "--arm", point) as worker:
        await killed(worker)


async def rescuing(site: Site, point: str) -> None:
    """A first worker dies with its hands full, and a second while it looks after what that one left."""
    await site.submit(MIX)
    with site.worker("--lease", "1", "--arm", "body: after its effect outside") as first:
        await killed(first)
    with site.worker("--lease", "1", "--arm", point) as second:
        await killed(second)


async def leaving(site: Site, point: str) -> None:
    await site.submit(MIX)
    with site.worker("--lease", "1", "--grace", "0", "--arm", point) as worker:
        await eventually(lambda: site.rows("SELECT 1 FROM lineshaft_run_history LIMIT 1"))
        worker.send(signal.SIGTERM)
        await killed(worker)


async def pruning(site: Site, point: str) -> None:
    """What has finished is old at once for a worker that keeps nothing."""
    await site.submit(MIX)
    await site.finish()
    await site.submit({"books": 20}, "later")
    with site.worker("--lease", "1", "--arm", point, history="0s") as worker:
        await killed(worker)


async def submitting(site: Site, point: str) -> None:
    """A submitter that does not know what was accepted submits it again under the same keys."""
    with site.submitter("s", "--arm", point) as submitter:
        await killed(submitter)
    with site.submitter("s", "--count", "80") as submitter:
        assert await asyncio.to_thread(submitter.wait) == 0, submitter.log


ROLES: dict[str, Callable[[Site, str], Awaitable[None]]] = {
    WORKER: at_work,
    RESCUER: rescuing,
    LEAVER: leaving,
    PRUNER: pruning,
    SUBMITTER: submitting,
}


@pytest.mark.parametrize("point", [each for each in points.POINTS if each.kills], ids=lambda each: each.name)
async def test_a_kill_at_any_point_loses_and_doubles_nothing(tmp_path: Path, point: points.Point) -> None:
    async with Site(tmp_path) as site:
        await ROLES[point.role](site, point.name)
        assert point.name in site.reached
        await site.finish()
        assert site.violations() == []
        enough = SUBMITTED_MIN if point.role == SUBMITTER else SUCCEEDED_MIN
        assert site.ended() >= enough, site.tally()
        if point.name == "body of at-most-once work":
            assert site.ended("outcome_unknown") >= 1
