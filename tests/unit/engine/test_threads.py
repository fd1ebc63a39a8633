"""The threads of user functions: never a line before them, never in the way of the end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future

import pytest

from lineshaft.core.threads import Threads


def test_nothing_waits_for_a_thread() -> None:
    threads, together = Threads("test"), threading.Barrier(20)
    futures = [threads.submit(together.wait, 20) for _ in range(20)]
    assert sorted(future.result(20) for future in futures) == list(range(20))
    threads.shutdown()


def test_idle_threads_are_used_again() -> None:
    threads = Threads("test")
    names = set()
    for _ in range(50):
        names.add(threads.submit(lambda: threading.current_thread().name).result(20))
        time.sleep(0.001)
    assert len(names) < 50
    threads.shutdown()


def test_threads_end_with_the_shutdown() -> None:
    threads = Threads("ends-with-shutdown")
    for future in [threads.submit(time.sleep, 0.01) for _ in range(5)]:
        future.result(20)
    threads.shutdown()
    threads.shutdown()
    deadline_s = time.monotonic() + 20
    while any(thread.name.startswith("ends-with") for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match="ends-with-shutdown have been shut down"):
        threads.submit(print)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_errors_come_back(error: type[BaseException]) -> None:
    threads = Threads("test")

    def fails() -> None:
        raise error

    with pytest.raises(error):
        threads.submit(fails).result(20)
    assert threads.submit(lambda: 5).result(20) == 5
    threads.shutdown()


def test_an_idle_thread_keeps_nothing_alive() -> None:
    class Large:
        pass

    threads, large = Threads("test"), Large()
    gone = weakref.ref(large)
    threads.submit(id, large).result(20)
    del large
    deadline_s = time.monotonic() + 20
    while gone() is not None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
        gc.collect()
    threads.shutdown()


async def test_a_loop_runs_calls_in_it() -> None:
    threads = Threads("test")
    assert await asyncio.get_running_loop().run_in_executor(threads, divmod, 7, 2) == (3, 1)
    threads.shutdown()


def test_a_cancelled_call_is_not_made() -> None:
    threads = Threads("test")
    future: Future[None] = Future()
    future.cancel()
    called: list[int] = []
    threads._calls.put((future, lambda: called.append(1)))
    threads.submit(time.sleep, 0).result(20)
    threads.shutdown()
    assert called == []


def test_a_call_that_never_returns_does_not_keep_the_process() -> None:
    script = "import time; from lineshaft.core.threads import Threads; Threads('t').submit(time.sleep, 600); print('end')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "end\n"
