"""A memory cgroup around a process, of version 1 or 2, whichever this machine has. Needs root.

It is made inside the cgroup that this process is in already, as far up as version 2 asks for, and taken away again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class Memory:
    """A cgroup and what it knows of the memory used in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.inside = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
        """The command that runs a program in it."""

    @property
    def kills(self) -> int:
        """How many processes were killed for their memory."""
        for name in ("memory.events", "memory.oom_control"):
            if (self._folder / name).exists():
                facts = dict(line.split() for line in (self._folder / name).read_text().splitlines())
                return int(facts["oom_kill"])
        raise AssertionError("the kernel does not count them")

    @property
    def bytes_peak(self) -> int:
        """The most that was ever used in it at once, page cache included."""
        name = "memory.peak" if (self._folder / "memory.peak").exists() else "memory.max_usage_in_bytes"
        return int((self._folder / name).read_text())


@contextmanager
def memory_cgroup(name: str, bytes_max: int) -> Iterator[Memory]:
    """A cgroup in which all processes together use at most so much memory, and no swap."""
    folder = _parent() / f"lineshaft-{name}"
    folder.mkdir()
    try:
        bounds = ["memory.max", "memory.limit_in_bytes"]
        next(folder / each for each in bounds if (folder / each).exists()).write_text(str(bytes_max))
        for swap, most in (("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", bytes_max)):
            if (folder / swap).exists():
                (folder / swap).write_text(str(most))
        yield Memory(folder)
    finally:
        _remove(folder)


def _parent() -> Path:
    """Where a cgroup with a bound of memory can be made."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    if "memory" in own:
        return ROOT / "memory" / own["memory"].lstrip("/")
    folder = ROOT / own[""].lstrip("/")
    # Version 2 bounds the children of a cgroup that says so, and in which there are no processes.
    while "memory" not in (folder / "cgroup.subtree_control").read_text().split():
        assert folder != ROOT, "no cgroup here bounds memory"
        folder = folder.parent
    return folder


def _remove(folder: Path) -> None:
    """Once its last process, which was killed, is gone."""
    for _ in range(100):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return
    folder.rmdir()
