"""Simulated processes: killed without a last word, stalled past their timers, on clocks of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lineshaft import App
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import News
from lineshaft.testing.loop import SimulationLoop
from lineshaft.testing.machine import Machine
from lineshaft.testing.processes import Process, SimulatedClock, present_process

Program = Callable[[Machine, SimulationLoop], Coroutine[Any, Any, None]]


def played(program: Program, seed: int = 1) -> None:
    loop = SimulationLoop(seed)
    machine = Machine(loop, seed=seed)
    try:
        loop.run_until_complete(program(machine, loop))
    finally:
        machine.close()


def test_what_a_process_starts_belongs_to_it() -> None:
    async def program(machine: Machine, loop: SimulationLoop) -> None:
        process, seen = machine.process("one"), []

        async def work() -> None:
            seen.append(present_process())
            loop.call_later(1, lambda: seen.append(present_process()))
            await asyncio.gather(asyncio.ensure_future(look()), asyncio.to_thread(look_blocking))

        async def look() -> None:
            seen.append(present_process())

        def look_blocking() -> None:
            loop.threading.sleep(1)
            seen.append(present_process())

        process.run(work())
        await asyncio.sleep(5)
        assert seen == [process] * 4
        assert present_process() is None

    played(program)


def test_a_killed_process_says_no_last_word() -> None:
    notes: list[str] = []

    async def program(machine: Machine, loop: SimulationLoop) -> None:
        process = machine.process("one")
        process.at_death(lambda: notes.append("the kernel closes its files"))

        async def work() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                notes.append("finally, on the loop")

        def work_blocking() -> None:
            try:
                loop.threading.sleep(10)
            finally:
                notes.append("finally, in a thread")

        async def both() -> None:
            await asyncio.gather(work(), asyncio.to_thread(work_blocking))

        process.run(both())
        await asyncio.sleep(5)
        process.kill()
        process.kill()
        await asyncio.sleep(100)
        assert notes == ["the kernel closes its files"]
        assert not process.alive

    played(program)


@pytest.mark.parametrize("steps", range(1, 12))
def test_a_process_dies_at_the_step_that_it_is_counted_to(steps: int) -> None:
    async def program(machine: Machine, loop: SimulationLoop) -> None:
        process, taken = machine.process("one"), []

        async def work() -> None:
            while True:
                taken.append(loop.time())
                await asyncio.sleep(0)

        process.dies_in = steps
        process.run(work())
        await asyncio.sleep(1)
        assert len(taken) == steps - 1
        assert process.died is not None

    played(program)


def test_a_stalled_process_finds_its_timers_run_out() -> None:
    async def program(machine: Machine, loop: SimulationLoop) -> None:
        process, ticks = machine.process("one"), []

        async def work() -> None:
            for _ in range(6):
                await asyncio.sleep(1)
                ticks.append(round(loop.time()))

        process.run(work())
        await asyncio.sleep(2.5)
        process.stall(10)
        assert process.is_stalled
        await asyncio.sleep(20)
        # The third was due while it was stalled, at 3, and came when it went on.
        assert ticks == [1, 2, 13, 14, 15, 16]

    played(program)


def test_wall_clocks_may_be_wrong_and_boot_time_is_everybodys() -> None:
    async def program(machine: Machine, loop: SimulationLoop) -> None:
        right, ahead, fast = (
            machine.host(**wrong).clock for wrong in ({}, {"offset_s": 60.0}, {"drift": 0.5})
        )
        assert ahead.now_us() - right.now_us() == 60_000_000
        await right.sleep(100)
        assert round((fast.now_us() - right.now_us()) / 1e6) == 50
        assert right.boot_us() == ahead.boot_us() == fast.boot_us()
        assert right.boot_id() == ahead.boot_id()
        assert right.monotonic_s() == loop.time()
        assert isinstance(ahead, SimulatedClock)
        ahead.step(-60)
        assert ahead.now_us() == right.now_us()

    played(program)


# The machine that they share


def test_the_gate_is_held_by_one_process_at_a_time_and_passed_on_at_death(tmp_path: Path) -> None:
    async def program(machine: Machine, loop: SimulationLoop) -> None:
        inside: list[str] = []

        async def write(process: Process, for_s: float) -> None:
            gate = machine.surroundings(process).gate(tmp_path)

            def hold() -> None:
                with gate.entered():
                    inside.append(f"{process.name} at {loop.time():.0f}")
                    assert machine.is_writing(tmp_path)
                    loop.threading.sleep(for_s)

            await asyncio.to_thread(hold)

        processes = [machine.process(name) for name in ("one", "two", "three")]
        for process, for_s in zip(processes, (5, 100, 5), strict=True):
            process.run(write(process, for_s))
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        processes[1].kill()
        await asyncio.sleep(20)
        assert inside == ["one at 0", "two at 5", "three at 10"]
        assert not machine.is_writing(tmp_path)

    played(program)


def test_a_worker_is_dead_when_its_process_is(tmp_path: Path) -> None:
    async def program(machine: Machine, _: SimulationLoop) -> None:
        one, two = machine.process("one"), machine.process("two")
        mine, others = (machine.surroundings(each).alive(tmp_path) for each in (one, two))
        assert mine.take(1)
        assert not others.take(1)
        assert not others.is_dead(1)
        assert machine.workers_of(one) == [1]
        one.stall(100)
        assert not others.is_dead(1)
        one.kill()
        assert others.is_dead(1)

    played(program)


def test_pokes_arrive_or_are_lost_as_the_machine_says() -> None:
    async def program(machine: Machine, loop: SimulationLoop) -> None:
        one, two = machine.process("one"), machine.process("two")
        mine, theirs = (machine.surroundings(each).pokes() for each in (one, two))
        heard: list[tuple[News, Process | None]] = []
        end = theirs.hear(loop, lambda news: heard.append((news, present_process())))
        assert mine.send(theirs.address, News.WORK)
        await asyncio.sleep(1)
        machine.delivery = lambda _process, _news: None
        assert mine.send(theirs.address, News.CANCEL)
        await asyncio.sleep(1)
        assert heard == [(News.WORK, two)]
        end()
        two.kill()
        assert not mine.send(theirs.address, News.WORK)

    played(program)


def test_an_app_lives_in_it_and_survives_a_kill(tmp_path: Path) -> None:
    """A worker is killed in the middle of a run; another one, on the same file, executes it again."""
    done: list[str] = []

    def an_app(machine: Machine, process: Process) -> App:
        host = machine.host()
        store = SqliteStore(tmp_path / "store.db", host.clock, machine.surroundings(process))
        app = App("simulated", store=store, host=host)

        @app.task(name="greet")
        async def greet(name: str) -> str:
            await asyncio.sleep(10)
            done.append(name)
            return f"Hello {name}"

        @app.task(name="add")
        def add(one: int, two: int) -> int:
            return one + two

        return app

    async def work(machine: Machine, process: Process) -> None:
        async with an_app(machine, process) as app, app.worker():
            await asyncio.sleep(1_000)

    results: list[Any] = []

    async def submit(machine: Machine, process: Process) -> None:
        async with an_app(machine, process) as app:
            tasks = {task.name: task for task in app.registry.tasks()}
            from lineshaft.engine.task import Task

            greet, add = (
                Task(tasks[name].function, tasks[name], lambda: app.runtime) for name in ("greet", "add")
            )
            runs = [await greet.submit("Ada"), await add.submit(1, 2)]
            results.extend([await run.result() for run in runs])

    async def program(machine: Machine, loop: SimulationLoop) -> None:
        first, second, client = (machine.process(name) for name in ("first", "second", "client"))
        first.run(work(machine, first))
        asked = client.run(submit(machine, client))
        await asyncio.sleep(5)
        first.kill()
        assert done == []
        second.run(work(machine, second))
        await asked
        assert results == ["Hello Ada", 3]
        assert done == ["Ada"]
        assert loop.time() < 60
        second.kill()

    played(program)
