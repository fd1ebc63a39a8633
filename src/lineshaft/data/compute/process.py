"""One child of the process pool, as its parent sees it: started, given calls, watched, killed, reaped.

    starting ──► idle ◄──► busy         `take` makes it busy, its reply idle again
        └─────────┴──────────┴──► ending ──► gone

Started with `subprocess` and not with multiprocessing's Process, for four things: a child leads a process
group, so that what user code started in it dies with it; the user's script is imported only for a task
declared there, and where its errors can still be told; no tracker process stays behind; and `wait4` says what
CPU time a killed child had used.

Everything here runs in the loop's thread and never blocks but for the start itself (a vfork and exec, a few
milliseconds).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import psutil

from lineshaft.data.compute.child import (
    FAILURE,
    FAILURE_BYTES_MAX,
    FRAME_KINDS,
    READY,
    REPLY,
    REQUEST,
    RESULT,
    STARTED,
)

START_S_MAX: Final = 60.0
"""Seconds that a child may take to start, and again to import the module of a task."""
RETIRE_S_MAX: Final = 5.0
"""Seconds that a retired child may take to end by itself before it is killed."""
REAP_S: Final = 0.005
"""How often an ending child is asked whether it has ended."""
READ_BYTES: Final = 262_144
"""Most that is read from a child at once."""

Cause = Literal["raised", "import", "start", "died", "timeout", "memory"]


@dataclass(frozen=True, slots=True)
class PoolFailure:
    """Why a call has no result.

    `cause` is `raised` (by the function, or by what decodes and encodes for it), `import` (its module
    cannot be imported or holds no such task), `start` (no child could be started, or importing took too
    long), `died` (the child did, of itself or of somebody else), `timeout` or `memory` (it was killed for
    it). `mro` names the exception's class and its bases, qualified, nearest first; it is empty where
    no exception was.
    """

    cause: Cause
    message: str
    mro: tuple[str, ...] = ()
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class PoolReply:
    """How a call ended: `result`, or the `failure` that stands in its place, and what it used.

    Memory is what was resident in the child after the call, and the most during it; 0 where a child
    ended before it could tell. `wall_s` begins when the function does.
    """

    result: bytes | None
    failure: PoolFailure | None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_bytes: int = 0
    rss_peak_bytes: int = 0


@dataclass(eq=False, slots=True)
class Call:
    """One call on its way from the queue to its reply."""

    target: str
    payload: bytes
    timeout_s: float | None
    reply: asyncio.Future[PoolReply]
    child: ChildProcess | None = None
    began_s: float = 0.0

    def settle(self, reply: PoolReply) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)


class State(enum.Enum):
    """Where a child is in its life; drawn at the top."""

    STARTING = enum.auto()
    IDLE = enum.auto()
    BUSY = enum.auto()
    ENDING = enum.auto()
    GONE = enum.auto()


class ChildProcess:
    """A running child. `on_change` is told when it became idle and when it is gone."""

    def __init__(self, *, on_change: Callable[[ChildProcess], None], frame_bytes_max: int) -> None:
        """Start it. Raises OSError where the system refuses another process or socket."""
        self.state = State.STARTING
        self.ready = False
        """Whether it ever was; one that is gone without having been could not start."""
        self.calls = 0
        self.call: Call | None = None
        self.rss_bytes = 0
        self.failure: PoolFailure | None = None
        """Why it had to be killed, or could not start."""
        self._on_change = on_change
        self._frame_bytes_max = frame_bytes_max
        self._loop = asyncio.get_running_loop()
        self._imported: set[str] = set()
        self._inbox = bytearray()
        self._outbox = memoryview(b"")
        self._writing = False
        self._cpu_s = 0.0
        self._limit: asyncio.TimerHandle | None = None
        self._kill_at_s: float | None = None
        self._watched: psutil.Process | None = None
        self._sock, theirs = socket.socketpair()
        with theirs:
            try:
                self._popen = _launch(theirs, frame_bytes_max)
            except BaseException:
                self._sock.close()
                raise
        self.pid = self._popen.pid
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock, self._read)
        self._limit_to(START_S_MAX, "start", f"The pool child (pid {self.pid}) did not start")

    # Giving it work

    def take(self, call: Call) -> None:
        """Execute `call` in this child, which must be idle."""
        self.state = State.BUSY
        self.calls += 1
        self.call, call.child, call.began_s = call, self, self._loop.time()
        if call.target in self._imported:
            self._limit_to_timeout(call)
        else:
            self._limit_to(START_S_MAX, "start", f"Importing {call.target} did not end")
        target = call.target.encode()
        self._outbox = memoryview(REQUEST.pack(len(target), len(call.payload)) + target + call.payload)
        self._write()

    def retire(self) -> None:
        """Let it end by itself, soon. It must be idle."""
        self._kill_at_s = self._loop.time() + RETIRE_S_MAX
        self._end()

    def kill(self, failure: PoolFailure | None = None) -> None:
        """End it at once, with everything it started; its call, if any, ends with `failure`."""
        if self.state is State.GONE:
            return
        self.failure = self.failure or failure
        self._kill_group()
        self._end()

    def check(self, memory_bytes_max: int | None) -> None:
        """See that a busy child lives, and kill it where it holds more memory than it may.

        A child's death normally shows at once on its socket, but not while a process that it forked
        holds the other end open.
        """
        if self._collect() or memory_bytes_max is None or self.call is None:
            return
        with contextlib.suppress(psutil.Error):
            self._watched = self._watched or psutil.Process(self.pid)
            self.rss_bytes = self._watched.memory_info().rss
        if self.rss_bytes > memory_bytes_max:
            message = (
                f"{self.call.target} held {_mib(self.rss_bytes)} in its pool child (pid {self.pid}), which "
                f"may hold {_mib(memory_bytes_max)}; it was killed. Raise the bound or work in smaller parts."
            )
            self.kill(PoolFailure("memory", message))

    # The wire

    def _write(self) -> None:
        """Send what the pipe takes now; the loop calls again for the rest, so a deaf child blocks nobody."""
        try:
            sent = self._sock.send(self._outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(self._outbox)  # it is going; the reader sees the end and finds out why
        self._outbox = self._outbox[sent:]
        if self._outbox and not self._writing:
            self._loop.add_writer(self._sock, self._write)
        elif self._writing and not self._outbox:
            self._loop.remove_writer(self._sock)
        self._writing = bool(self._outbox)

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # dead, or deaf for good
            self.kill()
            return
        self._inbox += data
        while self.state in (State.STARTING, State.BUSY) and self._read_frame():
            pass
        if self.state is State.IDLE and self._inbox:  # nobody asked, so no later reply could be trusted
            self.kill()

    def _read_frame(self) -> bool:
        if len(self._inbox) < REPLY.size:
            return False
        kind, wall_s, cpu_s, self._cpu_s, rss, peak, size = REPLY.unpack_from(self._inbox)
        if kind not in FRAME_KINDS or size > max(self._frame_bytes_max, FAILURE_BYTES_MAX):
            self.kill(PoolFailure("died", f"The pool child (pid {self.pid}) sent what no child sends."))
            return False
        end = REPLY.size + size
        if len(self._inbox) < end:
            return False
        body = bytes(memoryview(self._inbox)[REPLY.size : end])
        del self._inbox[:end]
        self.rss_bytes = rss
        call = self.call
        if kind == STARTED and call is not None:
            self._imported.add(call.target)
            call.began_s = self._loop.time()
            self._limit_to_timeout(call)
        elif kind == READY:
            self.ready = True
            self._rest()
        elif call is not None:
            failure = _read_failure(body) if kind == FAILURE else None
            result = body if kind == RESULT else None
            call.settle(PoolReply(result, failure, wall_s, cpu_s, rss, peak))
            self._rest()
        return True

    def _rest(self) -> None:
        self.call = None
        self._unlimit()
        self.state = State.IDLE
        self._on_change(self)

    # Limits of time

    def _limit_to_timeout(self, call: Call) -> None:
        if call.timeout_s is None:
            self._unlimit()
        else:
            self._limit_to(call.timeout_s, "timeout", f"{call.target} did not finish")

    def _limit_to(self, seconds: float, cause: Cause, what: str) -> None:
        self._unlimit()
        message = f"{what} within {seconds:g} s; the pool child (pid {self.pid}) was killed."
        self._limit = self._loop.call_later(seconds, self.kill, PoolFailure(cause, message))

    def _unlimit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    # The end

    def _end(self) -> None:
        if self.state is State.ENDING:
            return
        self.state = State.ENDING
        self._hang_up()
        self._reap()

    def _hang_up(self) -> None:
        self._unlimit()
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        with contextlib.suppress(OSError):
            # Unlike close, it reaches the child even if somebody forked this process meanwhile.
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._inbox.clear()
        self._outbox = memoryview(b"")

    def _reap(self) -> None:
        if self._collect():
            return
        if self._kill_at_s is not None and self._loop.time() > self._kill_at_s:
            self._kill_group()
        self._loop.call_later(REAP_S, self._reap)

    def _collect(self) -> bool:
        """Take leave of the child if it has ended; whether it has."""
        if self.state is State.GONE:
            return True
        how, cpu_s, code = "ended; something else in this process collected its exit status", self._cpu_s, 0
        with contextlib.suppress(ChildProcessError):
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid == 0:
                return False
            code = os.waitstatus_to_exitcode(status)
            how, cpu_s = _how_it_ended(code), used.ru_utime + used.ru_stime
        self._popen.returncode = code  # or subprocess would wait for it again
        self.state = State.GONE
        self._kill_group()  # what it had started goes with it
        self._hang_up()
        if not self.ready:
            message = f"A pool child (pid {self.pid}) {how} before it was ready; its standard error says why."
            self.failure = self.failure or PoolFailure("start", message)
        if self.call is not None:
            self._settle_without_child(self.call, how, max(0.0, cpu_s - self._cpu_s))
        self._on_change(self)
        return True

    def _settle_without_child(self, call: Call, how: str, cpu_s: float) -> None:
        message = f"The pool child (pid {self.pid}) that executed {call.target} {how}."
        failure = self.failure or PoolFailure("died", message)
        wall_s = self._loop.time() - call.began_s
        call.settle(PoolReply(None, failure, wall_s, cpu_s, self.rss_bytes, self.rss_bytes))
        self.call = None

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.state is not State.GONE:  # once reaped, its id may be another's
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # it may have left its group


_BOOT: Final = (
    "import json, os, sys; setup = json.loads(os.environ.pop('LINESHAFT_POOL_CHILD')); "
    "sys.path[:] = setup['path']; from lineshaft.data.compute.child import main; main(setup)"
)


def _launch(theirs: socket.socket, frame_bytes_max: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter with our import path, flags and environment, at its end of the socket."""
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    setup: dict[str, Any] = {
        "fd": theirs.fileno(),
        "parent_pid": os.getpid(),
        "frame_bytes_max": frame_bytes_max,
        "path": [str(entry) for entry in sys.path],
        "argv": sys.argv,
        # A directory or an archive that is run is called __main__ already and is found by its path only.
        "main": {"name": None if name == "__main__" else name, "path": getattr(main, "__file__", None)},
    }
    # Our -O, -W, -X and so on: there is no public way, and multiprocessing passes them on by this one.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return subprocess.Popen(
        [sys.executable, *flags, "-c", _BOOT],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env={**os.environ, "LINESHAFT_POOL_CHILD": json.dumps(setup)},
        process_group=0,
    )


def _read_failure(body: bytes) -> PoolFailure:
    told = json.loads(body)
    return PoolFailure(told["cause"], told["message"], tuple(told["mro"]), told["traceback"])


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = " (the system does that where memory runs out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1_048_576:,.0f} MiB"
