"""What runs inside a child of the process pool: take a call, execute it, reply, until the parent hangs up.

The wire is one socket. A request is a target and a payload; every frame that comes back carries what was
measured here. No value of the user's is ever pickled: payloads are bytes, and an exception crosses as a
description of itself. The child has no store, so one that outlives its parent can commit nothing; it does
not outlive it for long either, see `_end_with_parent`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import re
import resource
import runpy
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, Final

from lineshaft.core.bounds import ERROR_TEXT_CHARS_MAX, NAME_CHARS_MAX
from lineshaft.core.errors import PayloadTooLarge

REQUEST: Final = struct.Struct(">II")
"""Bytes of the target, bytes of the payload; both follow."""
REPLY: Final = struct.Struct(">BdddQQI")
"""Kind, wall and CPU seconds of the call, CPU seconds of the child so far, memory now and at its highest
during the call, bytes of the body; the body follows."""
READY, STARTED, RESULT, FAILURE = FRAME_KINDS = range(4)
"""Up; the target is imported and now runs (told the first time only); its result; why there is none."""

ORPHAN_CHECK_S: Final = 0.5
"""How often a child looks whether its parent lives, where the kernel does not watch for it."""
MRO_NAMES_MAX: Final = 64
"""Base classes of an exception that are told to the parent."""
FAILURE_BYTES_MAX: Final = 1_048_576
"""An encoded description of an exception; the bounds of its parts keep it far below."""

_PR_SET_PDEATHSIG: Final = 1

Execute = Callable[[bytes], bytes]

_inside = False


def in_child() -> bool:
    """Whether this process is a child of a pool: a module it imports must not start the application again."""
    return _inside


def main(setup: dict[str, Any]) -> None:
    """Serve the parent on the socket that `setup` names, until it hangs up."""
    global _inside
    _inside = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which decides about us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _end_with_parent(setup["parent_pid"])
    sys.argv = setup["argv"]
    sock = socket.socket(fileno=setup["fd"])
    sock.set_inheritable(False)
    with sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _Server(sock, _Targets(setup["main"]), setup["frame_bytes_max"]).serve()


class _Server:
    """Answers one request after the other."""

    def __init__(self, sock: socket.socket, targets: _Targets, frame_bytes_max: int) -> None:
        self._sock = sock
        self._targets = targets
        self._frame_bytes_max = frame_bytes_max
        self._meter = _Meter()
        self._pid = os.getpid()

    def serve(self) -> None:
        self._send(READY)
        requests = self._sock.makefile("rb")
        while len(header := requests.read(REQUEST.size)) == REQUEST.size:
            target_bytes, payload_bytes = REQUEST.unpack(header)
            target = requests.read(target_bytes).decode()
            self._answer(target, requests.read(payload_bytes))

    def _answer(self, target: str, payload: bytes) -> None:
        self._meter.start()
        try:
            execute, new = self._targets.find(target)
        except BaseException as error:
            self._send(FAILURE, describe(error, cause="import"))
            return
        if new:
            self._send(STARTED)
            self._meter.start()
        self._send(*self._execute(execute, payload))

    def _execute(self, execute: Execute, payload: bytes) -> tuple[int, bytes]:
        try:
            result = execute(payload)
            if not isinstance(result, bytes):
                raise TypeError(f"execute_payload returned {type(result).__name__}, not bytes")
            if len(result) > self._frame_bytes_max:
                raise PayloadTooLarge(
                    f"The encoded result has {len(result)} bytes; "
                    f"{self._frame_bytes_max} may cross from a pool child."
                )
        except BaseException as error:  # SystemExit included: it ends the call, not the child
            return FAILURE, describe(error, cause="raised")
        return RESULT, result

    def _send(self, kind: int, body: bytes = b"") -> None:
        if os.getpid() != self._pid:  # user code forked and came back twice: only one may answer
            os._exit(0)
        frame = self._meter.frame(kind, body)
        _flush_output()
        self._sock.sendall(frame)


def _flush_output() -> None:
    """Whatever the call printed is out before its outcome is, even if the child is killed next."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # user code may have closed or replaced them
            stream.flush()


class _Targets:
    """Finds declared tasks by "module:qualname", importing each module once."""

    def __init__(self, main: dict[str, str | None]) -> None:
        self._main = main
        self._main_is_imported = False
        self._found: dict[str, Execute] = {}

    def find(self, target: str) -> tuple[Execute, bool]:
        """The target's `execute_payload`, and whether it was looked up for the first time."""
        if target in self._found:
            return self._found[target], False
        module_name, _, qualname = target.partition(":")
        if module_name == "__main__":
            self._import_main()
        found: Any = importlib.import_module(module_name)
        for name in qualname.split("."):
            found = getattr(found, name)
        execute = getattr(found, "execute_payload", None)
        if not callable(execute):
            raise TypeError(f"{target} is a {type(found).__name__}, not a declared task")
        self._found[target] = execute
        return execute, True

    def _import_main(self) -> None:
        """Import the script that the user started, under the name that multiprocessing gives it as well, so
        that its `if __name__ == "__main__"` block stays out.
        """
        # Not whether there is a __mp_main__: importing multiprocessing makes one, of whatever runs as __main__.
        if self._main_is_imported:
            return
        name, path = self._main["name"], self._main["path"]
        if name is not None:
            content = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
        elif path is not None:
            content = runpy.run_path(path, run_name="__mp_main__")
        else:
            raise ImportError(
                "The task was declared in an interactive session, which another process cannot import. "
                "Declare it in a module."
            )
        module = types.ModuleType("__mp_main__")
        module.__dict__.update(content)
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
        self._main_is_imported = True


class _Meter:
    """Measures one call after the other, and packs what it measured with each frame."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")  # proc(5): reset the peak of the resident set to its present size
        self._wall_ns = time.perf_counter_ns()
        self._cpu_s = time.process_time()

    def frame(self, kind: int, body: bytes) -> bytes:
        wall_s = (time.perf_counter_ns() - self._wall_ns) / 1e9
        cpu_s = time.process_time()
        rss_bytes, rss_peak_bytes = _memory_bytes()
        size = len(body)
        return REPLY.pack(kind, wall_s, cpu_s - self._cpu_s, cpu_s, rss_bytes, rss_peak_bytes, size) + body


_MEMORY: Final = re.compile(rb"VmHWM:\s*(\d+) kB\nVmRSS:\s*(\d+) kB")


def _memory_bytes() -> tuple[int, int]:
    """Resident bytes now and at their highest."""
    # Not getrusage on Linux: its peak survives exec, so a child would report that of its parent.
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as file:
        if found := _MEMORY.search(file.read()):
            return int(found[2]) * 1024, int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def describe(error: BaseException, *, cause: str) -> bytes:
    """The exception as JSON: names of its class and bases, its message, its traceback; all bounded.

    Whatever the exception does when it is looked at, this returns a description.
    """
    names = [_qualified_name(kind) for kind in type(error).__mro__[:MRO_NAMES_MAX] if kind is not object]
    try:
        message = str(error)
    except BaseException as refusal:
        message = f"(no message: its __str__ raised {_qualified_name(type(refusal))})"
    try:
        outer = error.__traceback__ and error.__traceback__.tb_next  # our own frame tells nobody anything
        trace = "".join(traceback.format_exception(type(error), error, outer))
    except BaseException:
        trace = ""
    description = {
        "cause": cause,
        "mro": names,
        "message": _printable(message[:ERROR_TEXT_CHARS_MAX]),
        "traceback": _printable(trace[-ERROR_TEXT_CHARS_MAX:]),  # its end says most
    }
    return json.dumps(description).encode()


def _qualified_name(kind: type) -> str:
    # The user's script is called __mp_main__ only in here.
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return _printable(f"{module}.{kind.__qualname__}"[:NAME_CHARS_MAX])


def _printable(text: str) -> str:
    """Without what a database refuses: lone surrogates and NUL."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _end_with_parent(parent_pid: int) -> None:
    """See to it that this process ends when its parent does, however that was.

    On Linux the kernel kills it, even inside native code that never lets Python run; elsewhere a thread
    looks. (The kernel means the parent's *thread* that started us, which is why the pool starts children
    from the thread of its loop only.)
    """
    watched = False
    if sys.platform == "linux":
        watched = ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0
    if not watched:
        threading.Thread(target=_watch_parent, args=(parent_pid,), name="watch-parent", daemon=True).start()
    if os.getppid() != parent_pid:  # it died before we could ask
        os._exit(1)


def _watch_parent(parent_pid: int) -> None:
    never = threading.Event()
    while os.getppid() == parent_pid:
        never.wait(ORPHAN_CHECK_S)
    os.killpg(0, signal.SIGKILL)
