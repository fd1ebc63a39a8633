"""Threads for functions of users, which may never return.

One is started whenever none is idle, so nothing ever queues behind a call that hangs; how many there are is for
the caller to bound. The standard library's pool joins its threads when the interpreter ends, which would keep a
drained process alive for as long as one of them hangs; nobody waits for these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Executor):
    """Calls functions in threads of its own until it is shut down."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._count = 0
        self._closed = False

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call it in a thread, at once."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"The threads {self._name} have been shut down.")
            self._calls.put((future, lambda: call(*args, **kwargs)))
            if not self._idle.acquire(blocking=False):
                self._count += 1
                name = f"{self._name}-{self._count}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - nothing queues
        """Take nothing more; each thread ends with the call that it executes, and nobody waits for it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in range(self._count):
                    self._calls.put(None)

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            _perform(*item)
            del item  # an idle thread keeps nothing alive
            self._idle.release()


def _perform(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
