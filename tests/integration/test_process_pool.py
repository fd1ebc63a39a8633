"""The process pool with real processes: FAILURES rows 3, 4 and, for what concerns it, 37."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from lineshaft.core.errors import InvalidSetting, Overloaded, PayloadTooLarge, ShuttingDown
from lineshaft.data.compute.pool import PoolReply, ProcessPool

TASKS = '''
import os, re, signal, subprocess, sys, time
from lineshaft.data.compute.child import in_child

class Task:
    def __init__(self, function):
        self.execute_payload = function

class Unprintable(LookupError):
    def __init__(self, lock):
        self.lock = lock
    def __str__(self):
        raise RuntimeError("no")

@Task
def echo(payload):
    return payload

@Task
def pid(payload):
    return str(os.getpid()).encode()

@Task
def inside(payload):
    return repr((in_child(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))).encode()

@Task
def fails(payload):
    raise Unprintable(open(os.devnull))

@Task
def leaves(payload):
    sys.exit(3)

@Task
def exits(payload):
    os._exit(7)

@Task
def crashes(payload):
    os.kill(os.getpid(), signal.SIGSEGV)

@Task
def hangs(payload):
    """Starts a process of its own, tells both ids, and neither ends nor lets Python run."""
    other = subprocess.Popen(["sleep", "1000"])
    with open(payload, "w") as file:
        print(os.getpid(), other.pid, file=file, flush=True)
    while True:
        time.sleep(0.01)

@Task
def forks(payload):
    """Dies, while a process that it forked holds its end of the socket."""
    if os.fork() == 0:
        os.setsid()
        with open(payload, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(1000)
    time.sleep(0.2)
    os._exit(9)

@Task
def doubles(payload):
    """Forks, and comes back in both processes."""
    os.fork()
    return payload

@Task
def holds(payload):
    """Computes without ever letting another thread run."""
    re.match("(a+)+$", "a" * 60 + "b")

@Task
def imports(payload):
    __import__(payload.decode())
    return b""

@Task
def waits(payload):
    """Tells that it executes, and waits until it may end."""
    folder = payload.decode()
    open(f"{folder}/{os.getpid()}", "w").close()
    while not os.path.exists(f"{folder}/end"):
        time.sleep(0.01)
    return payload

@Task
def sleeps(payload):
    time.sleep(float(payload))
    return payload

@Task
def burns(payload):
    end = time.process_time() + float(payload)
    while time.process_time() < end:
        pass
    return payload

@Task
def grows(payload):
    size = int(payload) << 20
    block = b"x" * size
    time.sleep(0.5)
    return b""

kept = []

@Task
def keeps(payload):
    kept.append(b"x" * (int(payload) << 20))
    return b""

@Task
def not_bytes(payload):
    return "text"

class Namespace:
    task = echo
'''

Build = Callable[..., ProcessPool]


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pool_tasks.py").write_text(TASKS)
    (tmp_path / "pool_broken.py").write_text("raise ZeroDivisionError('at import')")
    (tmp_path / "pool_slow.py").write_text("import time; time.sleep(0.6)\nfrom pool_tasks import echo")
    monkeypatch.syspath_prepend(tmp_path)


@contextlib.asynccontextmanager
async def pools() -> AsyncIterator[Build]:
    built: list[ProcessPool] = []

    def build(**options: Any) -> ProcessPool:
        built.append(ProcessPool(**{"children": 1, **options}))
        return built[-1]

    try:
        yield build
    finally:
        for pool in built:
            await pool.close(grace_s=0)


@pytest.fixture
async def build(tasks: None) -> AsyncIterator[Build]:
    async with pools() as build:
        yield build


@pytest.fixture
async def pool(build: Build) -> ProcessPool:
    pool = build()
    await pool.start()
    return pool


async def until(condition: Callable[[], Any], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  there is nothing that could set an event
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kept_by_nobody(pid: int) -> bool:
    """Neither running nor a zombie of ours."""
    return not psutil.pid_exists(pid)


def result(reply: PoolReply) -> bytes:
    assert reply.failure is None, reply.failure
    assert reply.result is not None
    return reply.result


async def test_a_call_comes_back_with_what_it_used(pool: ProcessPool) -> None:
    reply = await pool.call("pool_tasks:burns", b"0.05", timeout_s=30)
    assert result(reply) == b"0.05"
    assert 0.05 <= reply.cpu_s <= reply.wall_s + 0.05
    assert 1 << 20 < reply.rss_bytes <= reply.rss_peak_bytes
    assert result(await pool.call("pool_tasks:Namespace.task", b"")) == b""


async def test_the_peak_of_memory_is_that_of_the_call(pool: ProcessPool) -> None:
    large = await pool.call("pool_tasks:grows", b"200")
    small = await pool.call("pool_tasks:echo", b"")
    assert large.rss_peak_bytes > 200 << 20 > large.rss_bytes
    if sys.platform == "linux":
        assert small.rss_peak_bytes < 200 << 20


async def test_a_child_knows_that_it_is_one(pool: ProcessPool) -> None:
    told = result(await pool.call("pool_tasks:inside", b""))
    assert told == b"(True, <Handlers.SIG_IGN: 1>, <Handlers.SIG_DFL: 0>)"


async def test_an_exception_comes_as_a_description_and_the_child_goes_on(pool: ProcessPool) -> None:
    reply = await pool.call("pool_tasks:fails", b"")
    assert reply.result is None
    assert reply.failure is not None
    assert reply.failure.cause == "raised"
    assert reply.failure.mro[:2] == ("pool_tasks.Unprintable", "builtins.LookupError")
    assert reply.failure.message == "(no message: its __str__ raised builtins.RuntimeError)"
    assert "raise Unprintable" in reply.failure.traceback
    pids = pool.pids
    left = await pool.call("pool_tasks:leaves", b"")
    assert left.failure is not None
    assert left.failure.mro[0] == "builtins.SystemExit"
    typed = await pool.call("pool_tasks:not_bytes", b"")
    assert typed.failure is not None
    assert "not bytes" in typed.failure.message
    assert pool.pids == pids


@pytest.mark.parametrize(
    ("target", "name", "text"),
    [
        ("pool_absent:task", "ModuleNotFoundError", "No module named 'pool_absent'"),
        ("pool_broken:task", "ZeroDivisionError", "at import"),
        ("pool_tasks:absent", "AttributeError", "no attribute 'absent'"),
        ("pool_tasks:os", "TypeError", "not a declared task"),
    ],
)
async def test_a_target_that_cannot_be_imported(pool: ProcessPool, target: str, name: str, text: str) -> None:
    for _ in range(2):
        reply = await pool.call(target, b"")
        assert reply.failure is not None
        assert reply.failure.cause == "import"
        assert reply.failure.mro[0] == f"builtins.{name}"
        assert text in reply.failure.message
    assert result(await pool.call("pool_tasks:echo", b"on")) == b"on"
    assert len(pool.pids) == 1


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("pool_tasks:exits", "pool_tasks:exits ended with exit code 7"),
        ("pool_tasks:crashes", "pool_tasks:crashes was killed by SIGSEGV"),
    ],
)
async def test_a_child_that_dies_fails_its_own_call(pool: ProcessPool, target: str, text: str) -> None:
    first = result(await pool.call("pool_tasks:pid", b""))
    reply = await pool.call(target, b"")
    assert reply.failure is not None
    assert reply.failure.cause == "died"
    assert text in reply.failure.message
    assert kept_by_nobody(int(first))
    assert result(await pool.call("pool_tasks:pid", b"")) != first


async def test_one_killed_child_leaves_the_others_alone(build: Build, tmp_path: Path) -> None:
    pool = build(children=3)
    await pool.start()
    folder = tmp_path / "executing"
    folder.mkdir()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(pool.call("pool_tasks:waits", bytes(folder))) for _ in range(6)]
        await until(lambda: len(list(folder.iterdir())) == 3)
        os.kill(pool.pids[1], signal.SIGKILL)
        (folder / "end").touch()
    failures = [call.result().failure for call in calls if call.result().failure]
    assert len(failures) == 1
    assert failures[0] is not None
    assert failures[0].cause == "died"
    assert "was killed by SIGKILL" in failures[0].message


async def test_an_idle_child_that_is_killed_harms_no_call(pool: ProcessPool) -> None:
    first = int(result(await pool.call("pool_tasks:pid", b"")))
    os.kill(first, signal.SIGKILL)
    await until(lambda: not pool.pids)
    assert kept_by_nobody(first)
    assert int(result(await pool.call("pool_tasks:pid", b""))) != first


async def test_a_death_shows_even_if_a_fork_holds_the_socket(pool: ProcessPool, tmp_path: Path) -> None:
    reply = await pool.call("pool_tasks:forks", str(tmp_path / "pid").encode())
    assert reply.failure is not None
    assert "exit code 9" in reply.failure.message
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def test_a_call_that_forks_is_answered_once(pool: ProcessPool) -> None:
    for number in range(20):
        payload = str(number).encode()
        assert result(await pool.call("pool_tasks:doubles", payload)) == payload
    assert len(pool.pids) == 1


async def test_a_timeout_kills_the_child_and_what_it_started(pool: ProcessPool, tmp_path: Path) -> None:
    reply = await pool.call("pool_tasks:hangs", str(tmp_path / "pids").encode(), timeout_s=0.5)
    assert reply.failure is not None
    assert reply.failure.cause == "timeout"
    assert "pool_tasks:hangs did not finish within 0.5 s" in reply.failure.message
    assert reply.wall_s >= 0.5
    child, other = map(int, (tmp_path / "pids").read_text().split())
    assert kept_by_nobody(child)
    await until(lambda: not alive(other))
    assert result(await pool.call("pool_tasks:echo", b"on", timeout_s=30)) == b"on"


async def test_a_killed_call_tells_its_cpu_time(pool: ProcessPool) -> None:
    reply = await pool.call("pool_tasks:burns", b"1000", timeout_s=0.5)
    assert reply.failure is not None
    assert 0.0 < reply.cpu_s <= reply.wall_s + 0.1


async def test_importing_does_not_count_as_executing(pool: ProcessPool) -> None:
    assert result(await pool.call("pool_slow:echo", b"on", timeout_s=0.5)) == b"on"


async def test_a_cancelled_caller_kills_the_child(pool: ProcessPool, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        call = group.create_task(pool.call("pool_tasks:hangs", str(tmp_path / "pids").encode()))
        await until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith("\n"))
        child, other = map(int, (tmp_path / "pids").read_text().split())
        call.cancel()
    await until(lambda: kept_by_nobody(child) and not alive(other))
    assert result(await pool.call("pool_tasks:echo", b"on")) == b"on"


async def test_a_cancelled_waiter_leaves_the_line(pool: ProcessPool) -> None:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(pool.call("pool_tasks:sleeps", b"0.3"))
        await asyncio.sleep(0)
        waiter = group.create_task(pool.call("pool_tasks:exits", b""))
        last = group.create_task(pool.call("pool_tasks:echo", b"last"))
        await asyncio.sleep(0)
        waiter.cancel()
    assert result(first.result()) == b"0.3"
    assert result(last.result()) == b"last"


async def test_a_late_cancellation_spares_the_next_call_of_that_child(pool: ProcessPool) -> None:
    await pool.call("pool_tasks:echo", b"")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(pool.call("pool_tasks:echo", b"first"))
        following = group.create_task(pool.call("pool_tasks:sleeps", b"0.2"))
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251  the reply comes while the loop does not look
        await asyncio.sleep(0)
        first.cancel()  # in this turn of the loop the reply is read, and the child given its next call
    assert result(following.result()) == b"0.2"


async def test_a_child_is_retired_after_its_number_of_calls(build: Build) -> None:
    pool = build(runs_per_child_max=3)
    await pool.start()
    pids = [int(result(await pool.call("pool_tasks:pid", b""))) for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert kept_by_nobody(pids[0])


async def test_a_child_over_its_memory_is_killed_while_it_runs(build: Build) -> None:
    pool = build(memory_bytes_max=150 << 20)
    await pool.start()
    reply = await pool.call("pool_tasks:grows", b"300")
    assert reply.failure is not None
    assert reply.failure.cause == "memory"
    assert "may hold 150 MiB" in reply.failure.message
    assert reply.rss_peak_bytes > 150 << 20
    assert result(await pool.call("pool_tasks:echo", b"on")) == b"on"


async def test_a_child_that_keeps_too_much_memory_is_retired(build: Build) -> None:
    pool = build(memory_bytes_max=200 << 20)
    await pool.start()
    first = result(await pool.call("pool_tasks:pid", b""))
    await pool.call("pool_tasks:keeps", b"120")
    assert result(await pool.call("pool_tasks:pid", b"")) == first
    await pool.call("pool_tasks:keeps", b"120")
    assert result(await pool.call("pool_tasks:pid", b"")) != first


async def test_large_payloads_cross_both_ways(build: Build) -> None:
    pool = build(children=2)
    await pool.start()
    payloads = [os.urandom(900_000) for _ in range(20)]
    replies = await asyncio.gather(*(pool.call("pool_tasks:echo", payload) for payload in payloads))
    assert [result(reply) for reply in replies] == payloads


async def test_a_child_that_does_not_read_blocks_nobody(pool: ProcessPool) -> None:
    await pool.call("pool_tasks:echo", b"")
    os.kill(pool.pids[0], signal.SIGSTOP)
    reply = await pool.call("pool_tasks:echo", bytes(900_000), timeout_s=0.3)
    assert reply.failure is not None
    assert reply.failure.cause == "timeout"


async def test_bounds(build: Build) -> None:
    pool = build(waiting_max=1, frame_bytes_max=1_000)
    with pytest.raises(ShuttingDown, match="is closed"):
        await pool.call("pool_tasks:echo", b"")
    await pool.start()
    with pytest.raises(PayloadTooLarge, match="1001 bytes"):
        await pool.call("pool_tasks:echo", bytes(1_001))
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.call("pool_tasks:echo", bytes(1_000)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="1 calls wait for 1 pool children"):
            await pool.call("pool_tasks:echo", b"")
    reply = await pool.call("pool_tasks:grows", b"0")
    assert result(reply) == b""
    with pytest.raises(InvalidSetting, match="children is 0"):
        build(children=0)


async def test_two_hundred_calls_over_two_children(build: Build) -> None:
    pool = build(children=2)
    await pool.start()
    payloads = [str(number).encode() for number in range(200)]
    replies = await asyncio.gather(*(pool.call("pool_tasks:echo", each, timeout_s=60) for each in payloads))
    assert [result(reply) for reply in replies] == payloads
    assert len(pool.pids) == 2


async def test_calls_are_executed_in_the_order_in_which_they_came(pool: ProcessPool) -> None:
    order: list[int] = []

    async def one(number: int) -> None:
        result(await pool.call("pool_tasks:echo", b""))
        order.append(number)

    await asyncio.gather(*map(one, range(50)))
    assert order == list(range(50))


async def test_a_child_that_cannot_start_fails_one_call_each(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = build(children=2)
    await pool.start()
    monkeypatch.setattr("lineshaft.data.compute.process._BOOT", "raise SystemExit(4)")
    replies = await asyncio.gather(*(pool.call("pool_tasks:echo", b"") for _ in range(3)))
    for reply in replies:
        assert reply.failure is not None
        assert reply.failure.cause == "start"
        assert "exit code 4 before it was ready" in reply.failure.message
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    refused = await pool.call("pool_tasks:echo", b"")
    assert refused.failure is not None
    assert "The system refused to start a pool child" in refused.failure.message


def open_files() -> set[str]:
    return set(_open_files())


def _open_files() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            yield f"{entry.name}: {entry.readlink()}"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_closing_leaves_nothing(build: Build) -> None:
    files, processes = open_files(), psutil.Process().children(recursive=True)
    pool = build(children=4)
    await pool.start()
    async with asyncio.TaskGroup() as group:
        short = group.create_task(pool.call("pool_tasks:sleeps", b"0.5"))
        long = [group.create_task(refused(pool.call("pool_tasks:sleeps", b"1000"))) for _ in range(3)]
        await asyncio.sleep(0)
        await pool.call("pool_tasks:echo", b"")  # there are four children, so it waited for the short one
        assert short.done()
        long += [group.create_task(refused(pool.call("pool_tasks:sleeps", b"1000"))) for _ in range(3)]
        await asyncio.sleep(0)
        await pool.close(grace_s=0.3)
        assert psutil.Process().children(recursive=True) == processes
        assert open_files() == files
        with pytest.raises(ShuttingDown):
            await pool.call("pool_tasks:echo", b"")
    assert all(call.result() for call in long)
    await pool.close()


async def test_closing_lets_running_calls_finish(build: Build) -> None:
    pool = build(children=2)
    await pool.start()
    await pool.call("pool_tasks:echo", b"")
    async with asyncio.TaskGroup() as group:
        call = group.create_task(pool.call("pool_tasks:sleeps", b"0.4"))
        await asyncio.sleep(0.1)
        await pool.close(grace_s=30)
    assert result(call.result()) == b"0.4"


async def refused(call: Any) -> bool:
    with pytest.raises(ShuttingDown):
        await call
    return True


ON_UVLOOP = [
    test
    for name, test in list(globals().items())
    if name.startswith("test_") and inspect.signature(test).parameters.keys() <= {"build", "pool", "tmp_path"}
]


@pytest.mark.parametrize("test", ON_UVLOOP, ids=lambda test: test.__name__)
def test_the_same_on_uvloop(test: Callable[..., Awaitable[None]], tmp_path: Path) -> None:
    async def run() -> None:
        async with pools() as build:
            pool = build()
            await pool.start()
            fixtures = {"build": build, "pool": pool, "tmp_path": tmp_path}
            await test(**{name: fixtures[name] for name in inspect.signature(test).parameters})

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


PARENT = """
import asyncio, os, sys, time
from lineshaft.data.compute.child import in_child
from lineshaft.data.compute.pool import ProcessPool
from pool_tasks import Task

class Mine(Exception):
    pass

@Task
def here(payload):
    if payload == b"fail":
        raise Mine("mine")
    return repr((__name__, in_child())).encode()

async def main():
    pool = ProcessPool(children=1 if "short" in sys.argv else 4)
    await pool.start()
    if "short" in sys.argv:
        await pool.call("pool_tasks:imports", b"multiprocessing")
        print((await pool.call("__main__:here", b"")).result.decode())
        print((await pool.call("__main__:here", b"fail")).failure.mro[0])
        await pool.close()
        return
    async with asyncio.TaskGroup() as group:
        for target in ("pool_tasks:sleeps", "pool_tasks:burns", "pool_tasks:holds"):
            group.create_task(pool.call(target, b"1000"))
        await pool.call("pool_tasks:sleeps", b"0.5")
        print(*pool.pids, flush=True)

if not in_child():
    asyncio.run(main())
"""


def run_parent(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )


@pytest.mark.parametrize("start", [["parent.py"], ["-m", "parent"]])
def test_a_task_of_the_started_script(tmp_path: Path, start: list[str]) -> None:
    with run_parent(tmp_path, *start, "short") as parent:
        output, _ = parent.communicate(timeout=60)
    assert output == "('__mp_main__', True)\n__main__.Mine\n"


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with run_parent(tmp_path, "parent.py") as parent:
        assert parent.stdout is not None
        pids = list(map(int, parent.stdout.readline().split()))
        assert len(pids) == 4
        assert all(map(alive, pids))
        parent.kill()
        parent.wait()
        _wait_until(lambda: not any(map(alive, pids)), within_s=30.0)


def test_the_watching_thread_ends_an_orphan_as_well() -> None:
    """Where the kernel cannot be asked: the same thread, in a process made an orphan by its parent's end."""
    code = """
        import os, signal, subprocess, sys, time
        grandchild = '''if True:
            import os, sys, time
            from lineshaft.data.compute import child
            child.sys = __import__("types").SimpleNamespace(platform="other")
            child._end_with_parent(int(sys.argv[1]))
            print(os.getpid(), flush=True)
            while True: pass
        '''
        subprocess.Popen([sys.executable, "-c", grandchild, str(os.getpid())], process_group=0)
        time.sleep(1000)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        assert alive(orphan)
        parent.kill()
        parent.wait()
        _wait_until(lambda: not alive(orphan), within_s=30.0)


def _wait_until(condition: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
