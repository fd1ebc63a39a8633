"""Every error that Lineshaft raises, in one tree.

    LineshaftError                      code, what happened, what to do, whether retrying helps
    ├── DeclarationError                the program is wrong; found when it is declared
    ├── InvalidArguments                a submission's arguments do not fit the task
    ├── InvalidSetting                  a setting or option has a value that cannot be meant
    ├── PayloadTooLarge                 arguments or a result over their bound
    ├── NotEncodable                    a value that does not survive the way to storage and back
    ├── KeyReused                       a submission key came again with other arguments
    ├── RunNotFound                     no run has this id (any more)
    ├── InvalidTransition               a run in this state cannot do that
    ├── StoreError
    │   ├── StoreUnavailable            cannot be opened or reached; retrying may help
    │   ├── NotAStore                   the file is something else
    │   ├── StoreTooNew                 written by a newer Lineshaft
    │   ├── StoreOutdated               written by an older Lineshaft; migrate first
    │   ├── StoreFull                   the disk or a quota is full; retrying helps once there is room
    │   ├── TransactionTooLong          a transaction held the writer beyond its bound
    │   └── TransactionRefused          something a transaction must not do, or a foreign connection
    ├── LeaseLost                       this attempt no longer owns its run; what it wrote is rolled back
    ├── Overloaded                      a bound on queued or in-flight work is reached; retry later
    ├── ShuttingDown                    the process drains and takes nothing new
    └── RunFailure                      how a run ended, raised by `Run.result`
        ├── RunFailed                   its function raised, or its result was refused
        ├── RunTimedOut                 an attempt took longer than allowed
        ├── RunCrashed                  it killed every worker that ran it alone
        ├── RunCancelled                somebody cancelled it
        └── RunOutcomeUnknown           at-most-once work whose worker died

`ResultTimeout` is also a `TimeoutError`: the run goes on, only the waiting ended.
"""

from __future__ import annotations

from typing import Any, ClassVar


class LineshaftError(Exception):
    """Base of all errors raised by Lineshaft.

    `code` is stable and safe to match on; `hint` says what to do; `retryable` tells whether
    doing the same again later may succeed.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip() if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[LineshaftError], message: str, hint: str) -> LineshaftError:
    return kind(message, hint=hint)


class DeclarationError(LineshaftError):
    """A task, queue or app is declared in a way that cannot work."""

    code = "declaration"


class InvalidArguments(LineshaftError, TypeError):
    """Arguments do not fit the parameters of the task they are submitted to."""

    code = "invalid-arguments"


class InvalidSetting(LineshaftError, ValueError):
    """A setting, option or address has a value that cannot be meant."""

    code = "invalid-setting"


class PayloadTooLarge(LineshaftError, ValueError):
    """Encoded arguments or an encoded result exceed their bound."""

    code = "payload-too-large"


class NotEncodable(LineshaftError, ValueError):
    """A value would not come back from storage as it was."""

    code = "not-encodable"


class KeyReused(LineshaftError):
    """A submission key is in use for the same task and tenant with other arguments."""

    code = "key-reused"


class RunNotFound(LineshaftError, LookupError):
    """No run has this id: it was never submitted here, or its history has been pruned."""

    code = "run-not-found"


class InvalidTransition(LineshaftError):
    """The run's state does not allow what was asked."""

    code = "invalid-transition"


class StoreError(LineshaftError):
    """The store could not do what was asked; nothing was written."""

    code = "store"


class StoreUnavailable(StoreError):
    """The store cannot be opened or reached."""

    code = "store-unavailable"
    retryable = True


class NotAStore(StoreError):
    """The address leads to something that is not a Lineshaft store."""

    code = "not-a-store"


class StoreTooNew(StoreError):
    """The store was written by a newer version of Lineshaft."""

    code = "store-too-new"


class StoreOutdated(StoreError):
    """The store was written by an older version of Lineshaft and must be migrated."""

    code = "store-outdated"


class StoreFull(StoreError):
    """There is no room left; nothing was written."""

    code = "store-full"
    retryable = True


class TransactionTooLong(StoreError):
    """A transaction held the writer beyond its bound and was rolled back."""

    code = "transaction-too-long"


class TransactionRefused(StoreError):
    """A transaction tried what it must not do, or a connection cannot be joined safely."""

    code = "transaction-refused"


class LeaseLost(LineshaftError):
    """This attempt no longer owns its run; nothing it wrote through the store is kept."""

    code = "lease-lost"


class Overloaded(LineshaftError):
    """A bound on queued or in-flight work is reached."""

    code = "overloaded"
    retryable = True


class ShuttingDown(LineshaftError):
    """The process drains and takes nothing new."""

    code = "shutting-down"
    retryable = True


class ResultTimeout(LineshaftError, TimeoutError):
    """The run did not finish while we waited; it goes on."""

    code = "result-timeout"
    retryable = True


class RunFailure(LineshaftError):
    """A run ended without a result."""

    code = "run-failure"


class RunFailed(RunFailure):
    """The function raised, or its result was refused."""

    code = "run-failed"


class RunTimedOut(RunFailure):
    """An attempt took longer than its timeout, and no attempt was left."""

    code = "run-timed-out"


class RunCrashed(RunFailure):
    """The run killed every worker that executed it alone."""

    code = "run-crashed"


class RunCancelled(RunFailure):
    """The run was cancelled."""

    code = "run-cancelled"


class RunOutcomeUnknown(RunFailure):
    """At-most-once work whose worker died after the start was recorded."""

    code = "run-outcome-unknown"
