"""What a process has of its machine, where nothing else is said."""

from __future__ import annotations

import subprocess
import sys
import threading

from lineshaft.core.clock import SystemClock
from lineshaft.core.host import Host, SystemThreading
from lineshaft.core.ident import SystemChance

PATIENCE_S = 30.0


def test_a_process_has_the_machine_s_own() -> None:
    host = Host()
    assert isinstance(host.clock, SystemClock)
    assert isinstance(host.chance, SystemChance)
    assert isinstance(host.threading, SystemThreading)
    assert Host().chance is not host.chance


def test_a_thread_serves_under_its_name_until_it_ends() -> None:
    begun, end = threading.Event(), threading.Event()
    names: list[str] = []

    def serve() -> None:
        names.append(threading.current_thread().name)
        begun.set()
        end.wait(PATIENCE_S)

    thread = SystemThreading().start(serve, "printing")
    assert begun.wait(PATIENCE_S)
    assert thread.is_alive()
    end.set()
    thread.join()
    assert not thread.is_alive()
    assert names == ["printing"]


def test_the_end_of_the_process_waits_for_no_thread() -> None:
    script = (
        "import time; from lineshaft.core.host import Host;"
        " Host().threading.start(lambda: time.sleep(600), 'sleeping'); print('end')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "end\n"


def test_flags_and_conditions_work_across_threads() -> None:
    threads, told = SystemThreading(), []
    event, condition = threads.event(), threads.condition()

    def serve() -> None:
        assert event.wait(PATIENCE_S)
        with condition:
            told.append(1)
            condition.notify_all()

    thread = threads.start(serve, "telling")
    assert not event.is_set()
    with condition:
        event.set()
        assert condition.wait_for(lambda: told, PATIENCE_S)
    thread.join()
