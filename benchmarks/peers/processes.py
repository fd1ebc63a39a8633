"""Worker processes with all their children: started, looked at, stopped or killed together."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

STOP_S_MAX: Final = 4.0


class Workers:
    """The workers of a subject while the block lasts."""

    def __init__(
        self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], folder: Path
    ) -> None:
        self._commands = commands
        self._environment = dict(environment)
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all of them."""
        for number, command in enumerate(self._commands):
            with (self._folder / f"worker-{number}.log").open("ab") as log:
                self._started.append(
                    subprocess.Popen(
                        command,
                        cwd=self._folder,
                        env=self._environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )

    @property
    def alive(self) -> bool:
        """Whether any of those that were started is still there."""
        return any(process.poll() is None for process in self._started)

    def stop(self) -> None:
        """Ask all of them to end, and end what does not within a few seconds."""
        tree = self._tree()
        for process in self._started:
            process.send_signal(signal.SIGTERM)
        until_s = time.monotonic() + STOP_S_MAX
        for process in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until_s - time.monotonic()))
        self._end(tree)

    def kill(self) -> None:
        """Kill them (SIGKILL), parents and children alike."""
        self._end(self._tree())

    def _end(self, tree: Sequence[psutil.Process]) -> None:
        for process in tree:
            with suppress(psutil.Error):
                process.kill()
        for started in self._started:
            started.wait()
        psutil.wait_procs(tree, timeout=STOP_S_MAX)
        self._started.clear()

    def memory_mib(self) -> dict[str, float]:
        """What all of them hold: resident, and resident with what is shared counted once."""
        rss = pss = 0
        for process in self._tree():
            with suppress(psutil.Error):
                found = process.memory_full_info()
                rss += found.rss
                pss += getattr(found, "pss", found.rss)
        return {"rss_mib": rss / 2**20, "pss_mib": pss / 2**20}

    def cpu_s(self) -> float:
        """The processor time that those which are alive have used so far."""
        used_s = 0.0
        for process in self._tree():
            with suppress(psutil.Error):
                times = process.cpu_times()
                used_s += times.user + times.system
        return used_s

    def _tree(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in self._started:
            with suppress(psutil.Error):
                parent = psutil.Process(process.pid)
                found += [parent, *parent.children(recursive=True)]
        return found
