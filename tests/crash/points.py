"""Armed points: the places on a run's road at which a process can be made to die, or to stop.

A process of the harness that is told a point wraps the function there before it starts, so nothing of this is in
Lineshaft itself. `POINTS` is the list of all of them; `arm` is what a process calls.
"""

from __future__ import annotations

import fcntl
import functools
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineshaft.core.states import FINAL, State
from lineshaft.store.sqlite import claims, files, leases, pruning, settlement, submissions
from lineshaft.store.sqlite.files import StoreFiles
from lineshaft.store.sqlite.listening import Listening
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.sqlite.transaction import LentTransaction
from lineshaft.store.values import ClaimReply, News, Rescued
from tests.crash import workload

WRITER_THREAD = "lineshaft-writer"

When = Callable[[tuple[Any, ...], Any], bool]
"""Whether this passing counts: the arguments, and the result where the point lies after the call."""


class Armed:
    """Counts passings, and ends or stops the process at the one that it was armed for."""

    def __init__(self, name: str, passing: int, number: int, reached: Path) -> None:
        self._name = name
        self._left = passing
        self._number = number
        self._reached = reached
        self._lock = threading.Lock()

    def passed(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left != 0:
                return
        line = f"{self._name} {os.getpid()}\n"
        if self._number == signal.SIGSTOP:
            stop(line, self._reached)
            return
        # Written to the file before the signal: what the kernel has it keeps when the process dies.
        with self._reached.open("a") as file:
            file.write(line)
        os.kill(os.getpid(), self._number)  # signal 0 is none


_STOP = """
import fcntl, os, pathlib, signal, sys
stopped, *locks = map(int, sys.argv[3:])
threads = pathlib.Path(f"/proc/{stopped}/task")
os.kill(stopped, signal.SIGSTOP)
while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in threads.glob("*/stat")):
    pass
for lock in locks:
    fcntl.flock(lock, fcntl.LOCK_UN)
with open(sys.argv[2], "a") as reached:
    reached.write(sys.argv[1])
"""


def stop(line: str, reached: Path) -> None:
    """Stop this process, and have a child say so when it stands still.

    It holds no lock on the store then, unless this is its writer: that would hold up all others as well. The locks
    of the write gate are taken here, so that its own writer has none, and the child lets them go.
    """
    store = os.environ["LINESHAFT_STORE"].removeprefix("sqlite:///")
    with ExitStack() as stack:
        files = []
        if not in_writer():
            files = [stack.enter_context(Path(f"{store}-{lock}").open("a")) for lock in ("turn", "gate")]
        for file in files:
            fcntl.flock(file, fcntl.LOCK_EX)
        locks = [file.fileno() for file in reversed(files)]
        arguments = [line, str(reached), str(os.getpid()), *map(str, locks)]
        subprocess.run([sys.executable, "-S", "-E", "-c", _STOP, *arguments], pass_fds=locks, check=True)


@dataclass(frozen=True)
class Point:
    """`role` says which process comes by here: a worker at work, one that rescues, leaves or prunes, a submitter."""

    name: str
    role: str
    wrap: Callable[[Armed], None]
    passing: int = 1
    """At which time it happens; some work lies behind by then."""
    kills: bool = True
    """False for a place to stop in, or to be told of, for the tests that need one."""


def always(_: tuple[Any, ...], __: Any) -> bool:
    return True


def before(owner: Any, name: str, when: When = always) -> Callable[[Armed], None]:
    """A point just before a function is called."""
    return functools.partial(_wrap, owner, name, when, after=False)


def after(owner: Any, name: str, when: When = always) -> Callable[[Armed], None]:
    """A point just after a function has returned (an asynchronous one: has been awaited)."""
    return functools.partial(_wrap, owner, name, when, after=True)


def _wrap(owner: Any, name: str, when: When, armed: Armed, *, after: bool) -> None:
    original = getattr(owner, name)

    def look(args: tuple[Any, ...], result: Any = None) -> None:
        if when(args, result):
            armed.passed()

    if inspect.iscoroutinefunction(original):

        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            if not after:
                look(args)
            result = await original(*args, **kwargs)
            if after:
                look(args, result)
            return result

        setattr(owner, name, functools.wraps(original)(asynchronous))
        return

    def synchronous(*args: Any, **kwargs: Any) -> Any:
        if not after:
            look(args)
        result = original(*args, **kwargs)
        if after:
            look(args, result)
        return result

    setattr(owner, name, functools.wraps(original)(synchronous))


# When


def claimed(_: tuple[Any, ...], replies: Any) -> bool:
    """The claim gave something. In the store it is one of several, elsewhere it is alone."""
    return any(reply.runs for reply in ([replies] if isinstance(replies, ClaimReply) else replies))


def in_writer(*_: Any) -> bool:
    """The engine's own settlement, not that of a transaction."""
    return threading.current_thread().name == WRITER_THREAD


def of_ends(args: tuple[Any, ...], _: Any) -> bool:
    return in_writer() and any(outcome.state in FINAL for outcome in args[1])


def of_retries(args: tuple[Any, ...], _: Any) -> bool:
    return in_writer() and any(outcome.state is State.SCHEDULED and outcome.charged for outcome in args[1])


def finished_news(args: tuple[Any, ...], _: Any) -> bool:
    return bool(args[1] & News.FINISHED) and in_writer()


def work_news(args: tuple[Any, ...], _: Any) -> bool:
    return bool(args[1] & News.WORK)


def of_kind(kind: str) -> When:
    """A function of the workload, about operations of one kind."""
    return lambda args, _: any(isinstance(arg, str) and arg.startswith(f"{kind}/") for arg in args)


def swept(_: tuple[Any, ...], found: Any) -> bool:
    """The sweep found dead workers."""
    return any(rescued.workers for rescued in ([found] if isinstance(found, Rescued) else found))


def refused(_: tuple[Any, ...], kept: Any) -> bool:
    return not all(kept)


def pruned(_: tuple[Any, ...], steps: Any) -> bool:
    return any(step.runs for step in steps)


# Points that need more than a wrapped function


def checkpoint(wrap: Callable[[Armed], None]) -> Callable[[Armed], None]:
    """A point about a checkpoint, with one after every commit."""

    def arm_it(armed: Armed) -> None:
        files.LOG_BYTES_TO_CHECKPOINT = 0
        files.COMMITS_TO_CHECKPOINT = 1
        wrap(armed)

    return arm_it


def while_checkpointing(armed: Armed) -> None:
    """Once the database file begins to change, which only a checkpoint does."""
    original = StoreFiles.checkpoint

    def watched(store: StoreFiles, *args: Any, **kwargs: Any) -> None:
        before_ns = os.stat(store.path).st_mtime_ns

        def watch() -> None:
            while os.stat(store.path).st_mtime_ns == before_ns:
                continue
            armed.passed()

        threading.Thread(target=watch, daemon=True).start()
        original(store, *args, **kwargs)

    StoreFiles.checkpoint = watched  # type: ignore[method-assign]


WORKER, RESCUER, LEAVER, PRUNER, SUBMITTER = "worker", "rescuer", "leaver", "pruner", "submitter"

POINTS = (
    # The road of a run, in the order of it.
    Point("submit: before its commit", SUBMITTER, after(submissions, "submit"), 4),
    Point("submit: committed, and nobody knows", SUBMITTER, before(Listening, "committed", work_news), 4),
    Point("submit in a transaction: before its commit", SUBMITTER, before(LentTransaction, "commit"), 2),
    Point("submit in a transaction: committed", SUBMITTER, after(LentTransaction, "commit"), 2),
    Point("claim: before its commit", WORKER, after(claims, "claim", claimed), 2),
    Point("claim: committed, and nothing executed", WORKER, after(SqliteStore, "claim", claimed), 2),
    Point("start of at-most-once work: before its commit", WORKER, after(settlement, "mark_started")),
    Point("start of at-most-once work: committed", WORKER, after(SqliteStore, "mark_started"), 3),
    Point("body: before its effect outside", WORKER, before(workload, "call"), 5),
    Point("body: after its effect outside", WORKER, after(workload, "call"), 5),
    Point("body of at-most-once work", WORKER, after(workload, "call", of_kind("calls_once")), 2),
    Point("settlement: not begun", WORKER, before(SqliteStore, "settle"), 2),
    Point("settlement: before its commit", WORKER, after(settlement, "settle", of_ends), 2),
    Point(
        "settlement: committed, and nobody knows", WORKER, before(Listening, "committed", finished_news), 2
    ),
    Point("settlement: known to the worker", WORKER, after(SqliteStore, "settle"), 2),
    Point("settlement of a retry: before its commit", WORKER, after(settlement, "settle", of_retries), 1),
    Point("transaction: in its body", WORKER, after(workload, "write", of_kind("books")), 3),
    Point("transaction: in its asynchronous body", WORKER, after(workload, "write_async"), 3),
    Point("transaction: in the body of a batch", WORKER, after(workload, "write", of_kind("books_many")), 3),
    Point("transaction: its outcome written", WORKER, after(LentTransaction, "release"), 3),
    Point("transaction: before its commit", WORKER, before(LentTransaction, "commit"), 2),
    Point("transaction: committed, and nobody knows", WORKER, after(LentTransaction, "commit"), 2),
    # Beside the road.
    Point("registering: before its commit", WORKER, after(leases.Registry, "register")),
    Point("registering: committed", WORKER, after(SqliteStore, "register")),
    Point("heartbeat: before its commit", WORKER, after(leases.Registry, "beat"), 2),
    Point("checkpoint: before it", WORKER, checkpoint(before(StoreFiles, "checkpoint")), 8),
    Point("checkpoint: while it copies", WORKER, checkpoint(while_checkpointing), 8),
    Point("checkpoint: after it", WORKER, checkpoint(after(StoreFiles, "checkpoint")), 8),
    Point("pruning: before its commit", PRUNER, after(pruning, "prune", pruned)),
    Point("rescue: the dead found, nothing written", RESCUER, before(leases, "_suspect")),
    Point("rescue: before its commit", RESCUER, after(leases.Registry, "rescue", swept)),
    Point("rescue: committed, and nobody knows", RESCUER, after(SqliteStore, "rescue", swept)),
    Point("leaving: before its commit", LEAVER, after(leases.Registry, "unregister")),
    Point("leaving: committed", LEAVER, after(SqliteStore, "unregister")),
    Point("transaction: not begun", WORKER, before(SqliteStore, "transaction"), kills=False),
    Point(
        "transaction: refused for its fence", WORKER, after(LentTransaction, "release", refused), kills=False
    ),
    Point("settlement: refused for its fence", WORKER, after(SqliteStore, "settle", refused), kills=False),
    Point("rescue: not begun", RESCUER, before(SqliteStore, "rescue"), kills=False),
)

BY_NAME = {point.name: point for point in POINTS}


def arm(wanted: str, reached: Path) -> None:
    """Have this process get a signal at a point, given as `POINT`, `POINT=SIGSTOP`, or `POINT=` for none at all.

    In the file `reached` it says that it was there.
    """
    name, sign, signal_name = wanted.partition("=")
    number = signal.SIGKILL if not sign else signal.Signals[signal_name] if signal_name else 0
    point = BY_NAME[name]
    point.wrap(Armed(name, point.passing, number, reached))
