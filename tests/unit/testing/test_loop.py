"""The deterministic loop: one seed, one order; virtual time; nothing from outside."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from lineshaft.testing.loop import Endless, SimulationError, SimulationLoop, Stuck
from lineshaft.testing.threads import WouldBlock


@contextmanager
def a_loop(seed: int = 1, **options: Any) -> Iterator[SimulationLoop]:
    loop = SimulationLoop(seed, **options)
    try:
        yield loop
    finally:
        loop.close()


def played(seed: int, program: Callable[[list[Any]], Coroutine[Any, Any, Any]], **options: Any) -> list[Any]:
    """What a program writes down when a seed plays it."""
    notes: list[Any] = []
    with a_loop(seed, **options) as loop:
        loop.run_until_complete(program(notes))
    return notes


async def racing(notes: list[Any]) -> None:
    async def one(name: int) -> None:
        for step in range(3):
            notes.append((name, step))
            await asyncio.sleep(0)

    await asyncio.gather(*(one(name) for name in range(5)))


def test_one_seed_is_one_order_and_seeds_differ() -> None:
    orders = [tuple(played(seed, racing)) for seed in range(20)]
    assert orders == [tuple(played(seed, racing)) for seed in range(20)]
    assert len(set(orders)) == 20


def test_without_disorder_the_order_is_that_of_asyncio() -> None:
    notes: list[Any] = []
    asyncio.run(racing(notes))
    assert {tuple(played(seed, racing, disorder=0.0)) for seed in range(5)} == {tuple(notes)}


def test_a_seed_is_the_same_in_another_process() -> None:
    program = (
        "import asyncio\n"
        "from lineshaft.testing.loop import SimulationLoop\n"
        "lines = []\n"
        "async def waits(names):\n"
        "    tasks = {asyncio.ensure_future(asyncio.sleep(0.1, name)) for name in names}\n"
        "    for task in tasks: lines.append(task.get_coro().__qualname__)\n"
        "    done, _ = await asyncio.wait(tasks)\n"
        "    lines.extend(str(task.result()) for task in done)\n"
        "loop = SimulationLoop(5, trace=lines.append)\n"
        "loop.run_until_complete(waits(range(20)))\n"
        "print(lines)\n"
    )

    def printed(hash_seed: str) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    assert printed("1") == printed("2") != b""


def test_time_is_virtual() -> None:
    async def program(notes: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await asyncio.sleep(86_400)
        notes.append(round(loop.time() - began_s))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await loop.create_future()
        notes.append(round(loop.time() - began_s))

    assert played(1, program) == [86_400, 90_000]


def test_timers_come_in_the_order_of_their_times() -> None:
    async def program(notes: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        for delay_s in (3, 1, 2):
            loop.call_later(delay_s, notes.append, delay_s)
        loop.call_later(1.5, notes.append, "never").cancel()
        await asyncio.sleep(4)

    assert {tuple(played(seed, program)) for seed in range(5)} == {(1, 2, 3)}


def test_a_busy_program_does_not_stop_the_time() -> None:
    async def program(notes: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < 0.01:  # noqa: ASYNC110 - it is busy on purpose
            await asyncio.sleep(0)
        notes.append("rang")

    assert played(1, program) == ["rang"]


def test_what_cannot_come_any_more_is_said() -> None:
    async def program(_: list[Any]) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        played(1, program)


def test_what_does_not_end_is_ended() -> None:
    async def program(_: list[Any]) -> None:
        while True:  # noqa: ASYNC110 - it does not end, on purpose
            await asyncio.sleep(0)

    with pytest.raises(Endless):
        played(1, program, steps_max=1_000)


@pytest.mark.parametrize(
    "outside",
    [
        lambda loop: loop.add_signal_handler(signal.SIGTERM, print),
        lambda loop: loop.create_connection(asyncio.Protocol, "localhost", 1),
        lambda loop: loop.subprocess_exec(asyncio.SubprocessProtocol, "true"),
        lambda loop: loop.add_reader(0, print),
        lambda loop: loop.getaddrinfo("localhost", 1),
        lambda loop: loop.sock_recv(None, 1),
    ],
)
def test_what_comes_from_outside_is_refused(outside: Callable[[Any], Any]) -> None:
    async def program(_: list[Any]) -> None:
        await outside(asyncio.get_running_loop())

    with pytest.raises(SimulationError, match="outside"):
        played(1, program)


def test_a_thread_of_the_operating_system_is_refused() -> None:
    refused: list[BaseException] = []

    async def program(_: list[Any]) -> None:
        loop = asyncio.get_running_loop()

        def intrude() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except SimulationError as error:
                refused.append(error)

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()

    played(1, program)
    assert refused


async def in_threads(notes: list[Any]) -> None:
    """Three threads that take turns, in an order that the seed draws."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)

    def work(name: str) -> str:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        for step in range(3):
            notes.append((name, step))
            loop.threading.sleep(0.1)
        return name

    done = await asyncio.gather(*(asyncio.to_thread(work, name) for name in "abc"))
    notes.append((tuple(done), round(loop.time(), 1)))


def test_executors_call_in_simulated_threads() -> None:
    orders = [played(seed, in_threads) for seed in range(10)]
    assert orders == [played(seed, in_threads) for seed in range(10)]
    assert len({tuple(order) for order in orders}) > 3
    assert {order[-1] for order in orders} == {(("a", "b", "c"), 0.3)}
    assert all(
        sorted(order[:-1]) == [(name, step) for name in "abc" for step in range(3)] for order in orders
    )


def test_a_pool_that_is_given_is_not_used() -> None:
    async def program(notes: list[Any]) -> None:
        with ThreadPoolExecutor() as pool:
            here = threading.get_ident()
            notes.append(await asyncio.get_running_loop().run_in_executor(pool, threading.get_ident) == here)

    assert played(1, program) == [True]


def test_an_error_in_a_thread_comes_back() -> None:
    async def program(notes: list[Any]) -> None:
        try:
            await asyncio.to_thread(int, "x")
        except ValueError as error:
            notes.append(str(error))

    assert "invalid literal" in played(1, program)[0]


def test_a_call_that_was_cancelled_before_its_thread_began_is_not_made() -> None:
    async def program(notes: list[Any]) -> None:
        future = asyncio.get_running_loop().run_in_executor(None, notes.append, "called")
        future.cancel()
        await asyncio.sleep(1)

    assert played(1, program) == []


def test_context_variables_reach_the_thread() -> None:
    name = contextvars.ContextVar("name", default="nobody")

    async def program(notes: list[Any]) -> None:
        name.set("ada")
        notes.append(await asyncio.to_thread(name.get))

    assert played(1, program) == ["ada"]


# What threads block on


def test_a_condition_wakes_who_waits() -> None:
    async def program(notes: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        condition, stock = loop.threading.condition(), [0]

        def take() -> None:
            with condition:
                condition.wait_for(lambda: stock[0] > 0)
                stock[0] -= 1
                notes.append(round(loop.time()))

        takers = [asyncio.to_thread(take) for _ in range(2)]

        async def bring() -> None:
            for _ in range(2):
                await asyncio.sleep(5)
                stock[0] += 1
                condition.notify_all()

        await asyncio.gather(*takers, bring())

    assert played(1, program) == [5, 10]


def test_waiting_has_an_end_where_one_is_given() -> None:
    async def program(notes: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        event = loop.threading.event()

        def wait() -> None:
            notes.append((event.wait(3.0), round(loop.time())))
            notes.append((event.wait(30.0), round(loop.time())))

        loop.call_later(5.0, event.set)
        await asyncio.to_thread(wait)

    assert played(1, program) == [(False, 3), (True, 5)]


def test_a_thread_is_joined() -> None:
    async def program(notes: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        thread = loop.threading.start(lambda: loop.threading.sleep(7), "sleeper")

        def join() -> None:
            assert thread.is_alive()
            thread.join()
            notes.append((thread.is_alive(), round(loop.time())))

        await asyncio.to_thread(join)

    assert played(1, program) == [(False, 7)]


def test_the_loop_itself_may_not_block() -> None:
    async def program(_: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        loop.threading.event().wait()

    with pytest.raises(WouldBlock):
        played(1, program)
