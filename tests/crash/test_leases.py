"""Leases between real processes: who stops too long, who rescues, who leaves (FAILURES rows 5, 6, 8, 29, 42)."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.harness import Site
from tests.support import Program, eventually

LEASE = ("--lease", "1")
LEASE_S = 1.0
HELD_BY = """
SELECT argument.value FROM lineshaft_run AS run JOIN lineshaft_worker AS holder ON holder.id = run.worker,
    json_each(run.args) AS argument WHERE holder.pid = ?
"""
STOPPED_BEFORE = "transaction: not begun=SIGSTOP"
STOPPED_IN_BODIES = "body: after its effect outside=SIGSTOP"


def arms(*wanted: str) -> list[str]:
    """The arguments of a worker that arm these points."""
    return [part for each in wanted for part in ("--arm", each)]


async def reaches(site: Site, *points: str) -> None:
    """Wait until processes have been at these points, as often as they are named."""
    await eventually(
        lambda: all(site.reached.count(each) >= points.count(each) for each in points), str(points)
    )


def pid(program: Program) -> int:
    assert program.process is not None
    return program.process.pid


# Stopped past the lease


@pytest.mark.parametrize("kind", ["books", "books_async", "books_many"])
async def test_who_was_stopped_for_three_leases_commits_nothing(tmp_path: Path, kind: str) -> None:
    """Stopped with claimed work in its hands; when it goes on, somebody else holds that work and has not ended it."""
    async with Site(tmp_path) as site:
        await site.submit({kind: 20})
        # It is the fence that has to refuse what the stopped one writes, not the ledger.
        site.execute("DROP INDEX ledger_once")
        with site.worker(*LEASE, *arms(STOPPED_BEFORE, "transaction: refused for its fence=")) as stopped:
            await reaches(site, "transaction: not begun")
            await asyncio.sleep(3 * LEASE_S)
            with site.worker("--lease", "60", *arms(STOPPED_BEFORE)) as other:
                await reaches(site, "transaction: not begun", "transaction: not begun")
                stopped.send(signal.SIGCONT)
                await eventually(lambda: "lost its lease" in site.log)
                if kind == "books":
                    # The body is executed, and its rows are rolled back for the fence.
                    await reaches(site, "transaction: refused for its fence")
                held = {op for (op,) in site.rows(HELD_BY, pid(other))}
                assert len(held) == 10, "half of them, since suspects are taken in halves"
                assert not held & {op for (op,) in site.rows("SELECT op FROM ledger")}
                other.send(signal.SIGCONT)
                await site.until_empty()
            # The stopped one has gone on as another incarnation.
            await site.submit({kind: 20}, "later")
            await site.until_empty()
            assert site.rows(
                "SELECT count(*) FROM ledger WHERE op GLOB '*/later/*' AND pid = ?", pid(stopped)
            ) == [(20,)]
        await site.finish()
        assert site.violations() == []
        assert site.ended() == 40


async def test_plain_work_of_who_was_stopped_is_settled_by_its_successor(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.submit({"calls": 12})
        with site.worker(*LEASE, *arms(STOPPED_IN_BODIES, "settlement: refused for its fence=")) as stopped:
            await reaches(site, "body: after its effect outside")
            await asyncio.sleep(3 * LEASE_S)
            with site.worker("--lease", "60", *arms("body: before its effect outside=SIGSTOP")) as other:
                await reaches(site, "body: before its effect outside")
                held = site.rows(HELD_BY, pid(other))
                assert held
                stopped.send(signal.SIGCONT)
                await reaches(site, "settlement: refused for its fence")
                assert site.rows(HELD_BY, pid(other)) == held
                other.send(signal.SIGCONT)
                await site.until_empty()
        await site.finish()
        assert site.violations() == []
        assert site.ended() == 12
        assert len(site.calls()) > 12, "what the stopped one had called was called again, under the same key"


# Rescue


@pytest.mark.parametrize("point", ["rescue: the dead found, nothing written", "rescue: not begun"])
async def test_terminal_stays_terminal_while_a_rescue_pauses(tmp_path: Path, point: str) -> None:
    """A rescue stops where it has selected (and holds the writer), or just before; the holder goes on meanwhile."""
    async with Site(tmp_path) as site:
        await site.submit({"calls": 8})
        with site.worker(*LEASE, "--arm", STOPPED_IN_BODIES) as holder:
            await reaches(site, "body: after its effect outside")
            await asyncio.sleep(LEASE_S * 1.5)
            with site.worker(*LEASE, "--arm", f"{point}=SIGSTOP") as rescuer:
                await reaches(site, point)
                site.gather()
                [(ended,)] = site.rows("SELECT count(*) FROM lineshaft_run_history")
                holder.send(signal.SIGCONT)
                if point == "rescue: not begun":
                    await site.until_empty()
                else:
                    # All that it can do is wait for the writer.
                    await eventually(lambda: "lost its lease" in site.log)
                    assert site.rows("SELECT count(*) FROM lineshaft_run_history") == [(ended,)]
                site.gather()
                rescuer.send(signal.SIGCONT)
                await site.until_empty()
        await site.finish()
        assert site.violations() == []
        assert site.ended() == 8


async def test_several_workers_that_rescue_at_once_are_one_owner(tmp_path: Path) -> None:
    """Four stand before their first sweep, and are let go together."""
    async with Site(tmp_path) as site:
        await site.submit({"calls": 10, "books_many": 100, "waits": 200})
        with site.worker("--arm", "body: after its effect outside") as first:
            assert await asyncio.to_thread(first.wait) == -signal.SIGKILL
        [(dead, held)] = site.rows(
            "SELECT worker, count(*) FROM lineshaft_run WHERE worker IS NOT NULL GROUP BY worker"
        )
        assert held > 100  # type: ignore[operator]
        with ExitStack() as stack:
            rescuers = [
                stack.enter_context(site.worker("--arm", "rescue: not begun=SIGSTOP")) for _ in range(4)
            ]
            await reaches(site, *["rescue: not begun"] * 4)
            for rescuer in rescuers:
                rescuer.send(signal.SIGCONT)
            await site.until_empty()
            told = re.findall(rf"Workers (?:\d+, )*{dead}\b[^:]* died: (\d+) runs return", site.log)
            assert [int(count) for count in told] == [held], "one of them has swept it, and has found it all"
        await site.finish()
        assert site.violations() == []
        assert site.ended() == 310
        assert site.trail.rows.execute("SELECT max(crashes) FROM ended").fetchone() == (0,)


# Leaving


async def test_a_restarted_worker_and_the_one_that_still_drains_are_two(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.submit({"holds_thread": 3, "holds_loop": 3})
        with site.worker("--lease", "3", "--grace", "60") as old:
            await eventually(lambda: len(site.calls()) == 6)
            old.send(signal.SIGTERM)
            with site.worker("--lease", "3", "--grace", "60") as new:
                await site.submit({"calls": 20}, "later")
                await eventually(lambda: len(site.calls()) == 26)
                await eventually(lambda: site.rows("SELECT count(*) FROM lineshaft_run_history") == [(20,)])
                incarnations = dict(site.rows("SELECT pid, id FROM lineshaft_worker"))
                assert incarnations.keys() == {pid(old), pid(new)}
                await asyncio.sleep(1.5)  # a sweep of the new one, and the next
                site.release()
                await site.until_empty()
                assert await asyncio.to_thread(old.wait) == 0, site.log
                found = dict(site.rows("SELECT worker, count(*) FROM lineshaft_run_history GROUP BY worker"))
                assert found == {incarnations[pid(old)]: 6, incarnations[pid(new)]: 20}
        assert "died" not in site.log
        await site.finish()
        assert site.violations() == []
        assert len(site.calls()) == 32, "nothing was executed twice"


async def test_what_outlasts_the_grace_is_taken_over_at_once(tmp_path: Path) -> None:
    """With leases of a minute, nothing but its being handed back lets another worker begin."""
    async with Site(tmp_path) as site:
        counts = {"holds_thread": 2, "holds_loop": 2, "holds_process": 2}
        runs = await site.submit(counts)
        with site.worker("--lease", "60", "--grace", "0.2") as leaver:
            await eventually(lambda: len(site.calls()) == 6)
            more = await site.submit({"books": 300}, "later")
            leaver.send(signal.SIGTERM)
            with site.worker("--lease", "60"):
                assert await asyncio.to_thread(leaver.wait) == 0, site.log
                await eventually(lambda: len(site.calls()) == 12, "all of them begin again")
                site.release()
                await site.until_empty()
        for run in (*runs, *more):
            view = await run.view()
            assert (view.state, view.attempts, view.crashes) == ("succeeded", 1, 0)
        assert "died" not in site.log
        await site.finish()
        assert site.violations() == []
