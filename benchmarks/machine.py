"""The machine that figures were taken on: what it is, how fast its disk is, and how busy it is just now."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil


def now() -> str:
    """The time, as results carry it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe(folder: Path) -> dict[str, Any]:
    """What a reader needs to judge the figures; `folder` lies on the disk that was measured."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "file_system": _file_system(folder),
        "fsync_ms": round(fsync_ms(folder), 3),
        "calibration_ms": round(calibration_ms(), 1),
    }


def calibration_ms() -> float:
    """What a fixed loop of pure Python takes now. It grows when others use the machine."""
    began_s = time.perf_counter()
    for _ in range(1_000_000):
        pass
    return (time.perf_counter() - began_s) * 1e3


def fsync_ms(folder: Path, count: int = 200) -> float:
    """The median time of writing 4 KiB to the end of a file there and having it on disk."""
    page = bytes(4096)
    took_ms = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            began_s = time.perf_counter()
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
            took_ms.append((time.perf_counter() - began_s) * 1e3)
    return statistics.median(took_ms)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder: the one mounted nearest above it."""
    here = folder.resolve()
    mounts = [
        (len(disk.mountpoint), disk.fstype)
        for disk in psutil.disk_partitions(all=True)
        if here.is_relative_to(disk.mountpoint)
    ]
    return max(mounts, default=(0, "unknown"))[1]
