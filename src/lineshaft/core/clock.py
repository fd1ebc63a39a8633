"""The only owner of time and sleep.

Everything above takes a `Clock`, so that a simulation can give it another. Three kinds of time are kept
apart: wall time says when work is due (people mean it), monotonic time measures durations inside a process,
and boot time decides leases between processes of one machine, since nobody can set it.
"""

from __future__ import annotations

import asyncio
import time
from functools import cache
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Where the engine gets its time from."""

    def now_us(self) -> int:
        """Wall time, in microseconds since 1970 in UTC."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; comparable inside one process only."""

    def boot_us(self) -> int:
        """Microseconds since the machine started, sleep included; comparable between its processes."""

    def boot_id(self) -> str:
        """Names this start of the machine; boot times under different ids cannot be compared."""

    async def sleep(self, seconds: float) -> None:
        """Wait in the running event loop."""


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def boot_us(self) -> int:
        return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000 - _boot_shift_us()

    def boot_id(self) -> str:
        return _machine_boot_id()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# Linux has a clock that counts suspended time as well; elsewhere the monotonic one is the nearest.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@cache
def _boot_shift_us() -> int:
    """How far this process's boot time is from the machine's: a container may have a time namespace.

    Leases are compared between the two (time_namespaces(7)).
    """
    try:
        offsets = Path("/proc/self/timens_offsets").read_text().split()
    except OSError:
        return 0
    clock = offsets.index("boottime") if "boottime" in offsets else None
    return 0 if clock is None else int(offsets[clock + 1]) * 1_000_000 + int(offsets[clock + 2]) // 1_000


@cache
def _machine_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        # Without an id from the kernel, the time of the start to ten seconds names it well enough.
        started_s = time.time() - time.clock_gettime_ns(_BOOT_CLOCK) / 1e9
        return f"started-{round(started_s / 10)}"


def thread_cpu_ns() -> int:
    """CPU time that the calling thread has used, in nanoseconds."""
    return time.thread_time_ns()
