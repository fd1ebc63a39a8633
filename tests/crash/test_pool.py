"""Deaths in and around the process pool of a real worker (FAILURES rows 3, 4)."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil

from lineshaft import RunFailed
from lineshaft.core.errors import RunCrashed
from tests.crash.harness import Site
from tests.support import error_of, eventually, result_of


async def test_a_killed_child_fails_its_own_attempt_and_the_pool_goes_on(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        victim, neighbour = await site.submit({"holds_process": 2})
        with site.worker():
            await eventually(lambda: len(site.calls()) == 2)
            children = dict(site.calls())
            assert len(set(children.values())) == 2
            [other] = await site.submit({"holds_thread": 1})
            await eventually(lambda: len(site.calls()) == 3)
            os.kill(children["holds_process/site/0"], signal.SIGKILL)
            error = await error_of(victim)
            assert isinstance(error, RunFailed | RunCrashed)
            assert "SIGKILL" in str(error)
            view = await victim.view()
            assert view.failure is not None
            assert (view.failure.kind, view.attempts) == ("crash", 1)
            # The others have not noticed, and there is a child for the next call.
            [next_one] = await site.submit({"computes": 1}, "next")
            await result_of(next_one)
            assert psutil.pid_exists(children["holds_process/site/1"])
            site.release()
            assert await result_of(neighbour) == "holds_process/site/1"
            assert await result_of(other) == "holds_thread/site/0"
        await site.finish()
        assert site.violations() == []
        assert (site.ended(), site.ended("failed")) == (3, 1)


async def test_the_child_of_a_killed_worker_ends_and_commits_nothing(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.submit({"holds_process": 2})
        with site.worker() as worker:
            await eventually(lambda: len(site.calls()) == 2)
            orphans = {pid for _, pid in site.calls()}
            worker.send(signal.SIGKILL)
            assert await asyncio.to_thread(worker.wait) == -signal.SIGKILL
        await eventually(lambda: not any(map(psutil.pid_exists, orphans)), "the end of the orphans")
        site.release()
        await site.finish()
        assert site.violations() == []
        assert site.ended() == 2
        calls = [pid for _, pid in site.calls()]
        assert [pid in orphans for pid in calls] == [True, True, False, False, False, False], (
            "theirs had no end"
        )
        # The worker died with two runs in its hands: neither is proven to have killed it.
        assert site.trail.rows.execute("SELECT attempts, crashes FROM ended").fetchall() == [(1, 0), (1, 0)]
