"""What a running function may know of its run, and tell about it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lineshaft.core.errors import LineshaftError, RunCancelled
from lineshaft.engine.outcomes import clean

log = logging.getLogger("lineshaft.run")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run says it is."""

    done: float
    total: float | None = None
    message: str = ""


class Context:
    """Injected where a parameter is annotated with it. Safe to use from the thread that runs the function."""

    __slots__ = ("_report", "_stopped", "attempt", "idempotency_key", "queue", "run_id", "task", "tenant")

    def __init__(
        self,
        *,
        run_id: str,
        task: str,
        queue: str,
        tenant: str,
        attempt: int,
        idempotency_key: str,
        report: Callable[[Progress], None] | None,
        stopped: Callable[[], bool],
    ) -> None:
        self.run_id = run_id
        self.task = task
        self.queue = queue
        self.tenant = tenant
        self.attempt = attempt
        """1 for the first attempt, one more with each retry."""
        self.idempotency_key = idempotency_key
        """The same for every attempt of this run and every retry of it by an operator; give it to what you call."""
        self._report = report
        self._stopped = stopped

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logs with the run's id, task, tenant and attempt as fields of the record."""
        fields = {"run_id": self.run_id, "task": self.task, "tenant": self.tenant, "attempt": self.attempt}
        return logging.LoggerAdapter(log, fields)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the run is. Cheap: only the newest is kept, and written with the next commit."""
        if self._report is None:
            raise LineshaftError(
                f"Run {self.run_id} executes in a process of the pool, which reports no progress.",
                hint='Report from a task that runs on the loop or in a thread (run_in="thread").',
            )
        self.heartbeat()
        self._report(Progress(_number(done), None if total is None else _number(total), clean(str(message))))

    def heartbeat(self) -> None:
        """Raise `RunCancelled` if the run was cancelled, timed out or lost its lease meanwhile.

        An async function is interrupted by itself; one in a thread can only be asked, and this is where.
        """
        if self._stopped():
            raise RunCancelled(
                f"Run {self.run_id} is to stop: it was cancelled, timed out or lost its lease."
            )


def _number(value: float) -> float:
    """What can be stored and shown; anything else raises in the function that tells it."""
    number = value if type(value) is int else float(value)
    if not -1e18 < number < 1e18:  # also refuses NaN
        raise ValueError(f"Progress is told in finite numbers, not {value!r}.")
    return number


def context_fields(context: dict[str, Any]) -> Context:
    """The context of a run in a process of the pool."""
    return Context(**context, report=None, stopped=lambda: False)
