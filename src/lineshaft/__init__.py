"""Lineshaft: one durable engine under everything a Python backend team runs."""

from lineshaft.app import App
from lineshaft.core.errors import (
    DeclarationError,
    InvalidArguments,
    InvalidSetting,
    KeyReused,
    LineshaftError,
    NotEncodable,
    Overloaded,
    PayloadTooLarge,
    ResultTimeout,
    RunCancelled,
    RunCrashed,
    RunFailed,
    RunFailure,
    RunNotFound,
    RunOutcomeUnknown,
    RunTimedOut,
    StoreError,
    StoreFull,
    StoreUnavailable,
    TransactionRefused,
    TransactionTooLong,
)
from lineshaft.core.policies import Limit, Rate, Retry
from lineshaft.core.states import State
from lineshaft.engine.batches import Failed
from lineshaft.engine.context import Context, Progress
from lineshaft.engine.places import Concurrency
from lineshaft.engine.run import Run
from lineshaft.engine.task import Task
from lineshaft.engine.transactions import AsyncTransaction, Transaction

__all__ = [
    "App",
    "AsyncTransaction",
    "Concurrency",
    "Context",
    "DeclarationError",
    "Failed",
    "InvalidArguments",
    "InvalidSetting",
    "KeyReused",
    "Limit",
    "LineshaftError",
    "NotEncodable",
    "Overloaded",
    "PayloadTooLarge",
    "Progress",
    "Rate",
    "ResultTimeout",
    "Retry",
    "Run",
    "RunCancelled",
    "RunCrashed",
    "RunFailed",
    "RunFailure",
    "RunNotFound",
    "RunOutcomeUnknown",
    "RunTimedOut",
    "State",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "Task",
    "Transaction",
    "TransactionRefused",
    "TransactionTooLong",
]
