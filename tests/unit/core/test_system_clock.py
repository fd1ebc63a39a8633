"""The machine's clocks, against what the system says elsewhere."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from lineshaft.core import clock as module
from lineshaft.core.clock import SystemClock, thread_cpu_ns

CLOCK = SystemClock()
TIME_AND_BOOT = (
    "from lineshaft.core.clock import SystemClock as C; print(C().now_us(), C().boot_us(), C().boot_id())"
)


def test_wall_time_is_microseconds_since_1970() -> None:
    before, now, after = datetime.now(UTC), CLOCK.now_us(), datetime.now(UTC)
    assert before.timestamp() * 1e6 - 1 <= now <= after.timestamp() * 1e6 + 1


def test_monotonic_time_is_in_seconds() -> None:
    assert time.monotonic() <= CLOCK.monotonic_s() <= time.monotonic()


async def test_sleeping_takes_that_long_at_least() -> None:
    began_s = time.monotonic()
    await CLOCK.sleep(0.05)
    assert time.monotonic() - began_s >= 0.049


def test_boot_time_can_be_compared_between_processes() -> None:
    before_us = CLOCK.boot_us()
    done = subprocess.run([sys.executable, "-c", TIME_AND_BOOT], capture_output=True, text=True, check=True)
    now_us, boot_us, boot_id = done.stdout.split()
    assert before_us <= int(boot_us) <= CLOCK.boot_us()
    assert boot_id == CLOCK.boot_id()
    # What the system says of its start, to the second and a little more.
    assert abs((int(now_us) - int(boot_us)) / 1e6 - psutil.boot_time()) < 5


def test_without_an_id_from_the_kernel_the_start_of_the_machine_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    boot_id = module._machine_boot_id.__wrapped__()
    assert boot_id.startswith("started-")
    assert abs(int(boot_id.removeprefix("started-")) * 10 - psutil.boot_time()) <= 15


def test_the_cpu_time_of_a_thread_is_its_own() -> None:
    def burn() -> None:
        end_ns = time.thread_time_ns() + 30_000_000
        while time.thread_time_ns() < end_ns:
            pass

    before_ns = thread_cpu_ns()
    burn()
    used_ns = thread_cpu_ns() - before_ns
    assert used_ns >= 30_000_000
    other = threading.Thread(target=burn)
    before_ns = thread_cpu_ns()
    other.start()
    other.join()
    assert thread_cpu_ns() - before_ns < 30_000_000


@pytest.mark.parametrize(
    ("offsets", "shift_us"),
    [
        ("monotonic           0         0\nboottime            0         0\n", 0),
        ("monotonic          11        22\nboottime            5      7000\n", 5_000_007),
        ("monotonic          11        22\nboottime           -5 999000000\n", -4_001_000),
        ("", 0),
        (None, 0),
    ],
)
def test_boot_time_is_the_machine_s_even_in_a_time_namespace(
    monkeypatch: pytest.MonkeyPatch, offsets: str | None, shift_us: int
) -> None:
    """As time_namespaces(7) has it: seconds and nanoseconds that the namespace adds."""

    def read(path: Path) -> str:
        if offsets is None:
            raise FileNotFoundError(path)
        return offsets

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(module, "_boot_shift_us", module._boot_shift_us.__wrapped__)
    before_us, now_us, after_us = (
        time.clock_gettime_ns(module._BOOT_CLOCK) // 1_000,
        CLOCK.boot_us(),
        time.clock_gettime_ns(module._BOOT_CLOCK) // 1_000,
    )
    assert before_us - shift_us <= now_us <= after_us - shift_us
