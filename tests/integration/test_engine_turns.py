"""Async attempts that share a task: each has its own context, and a task of its own as soon as it waits."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from pydantic import BaseModel, field_validator

from lineshaft import RunCancelled, RunTimedOut, State
from lineshaft.core.clock import SystemClock
from lineshaft.engine.attempt import Attempt
from lineshaft.engine.turns import Turns
from tests.support import error_of, new_app, reaches, results_of, working

WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Named(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def note(cls, name: str) -> str:
        if name == "first":
            WHO.set(name)
        return name


async def test_attempts_that_never_wait_share_a_task_but_no_context(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    tasks = set()

    @app.task
    async def mark(i: int) -> str:
        before = WHO.get()
        WHO.set(f"run {i}")
        tasks.add(asyncio.current_task())
        return before

    async with app:
        runs = await mark.submit_many(range(200))
        async with app.worker():
            assert await results_of(runs) == ["nobody"] * 200
    assert len(tasks) < 200


async def test_attempts_that_wait_have_a_task_and_a_context_each(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    tasks = []
    all_there = asyncio.Event()

    @app.task
    async def meet(i: int) -> str:
        WHO.set(f"run {i}")
        tasks.append(asyncio.current_task())
        if len(tasks) == 20:
            all_there.set()
        # Nobody gets on unless those behind it in the claim begin.
        await all_there.wait()
        return WHO.get()

    async with app:
        runs = await meet.submit_many(range(20))
        async with app.worker():
            assert await results_of(runs) == [f"run {i}" for i in range(20)]
    assert len(set(tasks)) == 20


async def test_what_stops_one_attempt_stops_no_other(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(timeout=0.3)
    async def work(i: int) -> int:
        if i % 3 == 1:
            await asyncio.Event().wait()
        return i

    @app.task
    async def sleep(i: int) -> int:
        await asyncio.sleep(0 if i % 2 else 3_600)
        return i

    async with app:
        short = await work.submit_many(range(60))
        long = await sleep.submit_many(range(10))
        async with app.worker():
            for run in long[::2]:
                await reaches(run, State.RUNNING)
                await run.cancel()
            for i, run in enumerate(short):
                if i % 3 == 1:
                    assert isinstance(await error_of(run), RunTimedOut)
                else:
                    assert await run.result() == i
            assert await results_of(long[1::2]) == [1, 3, 5, 7, 9]
            for run in long[::2]:
                assert isinstance(await error_of(run), RunCancelled)


async def test_an_attempt_that_cancels_its_own_task_takes_no_other_along(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def rash(i: int) -> int:
        if i == 3:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return i

    async with app:
        runs = await rash.submit_many(range(10))
        async with app.worker():
            assert await results_of(runs) == list(range(10))


async def test_attempts_that_never_wait_leave_the_loop_its_turn(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    ticks_at = []
    ticks = 0

    @app.task
    async def compute(i: int) -> None:
        ticks_at.append(ticks)
        until = asyncio.get_running_loop().time() + 0.005
        while asyncio.get_running_loop().time() < until:
            pass

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with app:
        runs = await compute.submit_many(range(100))
        ticking = asyncio.create_task(tick())
        async with app.worker():
            await results_of(runs)
        ticking.cancel()
    longest = max(ticks_at.count(each) for each in set(ticks_at))
    assert longest <= 20, "half a second of attempts began between two turns of the loop"


async def test_a_drain_hands_back_those_that_have_not_begun(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    began = []

    @app.task
    async def work(i: int) -> int:
        began.append(i)
        await asyncio.sleep(0)
        return i

    async with app:
        runs = await work.submit_many(range(500))
        async with working(app):
            pass
        states = [await run.status() for run in runs]
        assert set(states) <= {State.SUCCEEDED, State.READY}
        async with app.worker():
            assert await results_of(runs) == list(range(500))
    assert sorted(began) == list(range(500)), "none began twice"


async def test_what_a_validator_sets_stays_with_its_run(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task
    async def look(named: Named) -> str:
        return WHO.get()

    async with app:
        runs = await look.submit_many([Named(name=name) for name in ("first", "second", "third")])
        WHO.set("nobody")
        async with app.worker():
            assert await results_of(runs) == ["first", "nobody", "nobody"]


async def test_many_that_wait_begin_within_a_few_turns_of_the_loop(tmp_path: Path) -> None:
    began: list[int] = []
    turn = 0

    async def execute(attempt: Attempt) -> None:
        began.append(turn)
        assert attempt.waits is not None
        attempt.waits()
        await asyncio.Event().wait()

    Turns(SystemClock(), execute).start(deque(cast("Attempt", SimpleNamespace()) for _ in range(200)))
    while len(began) < 200:
        turn += 1
        await asyncio.sleep(0)
    assert max(began) < 12
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
