"""The tree of errors: codes that programs match on, and the way between processes."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from lineshaft.core import errors
from lineshaft.core.errors import LineshaftError

CODES = {
    "LineshaftError": "error",
    "DeclarationError": "declaration",
    "InvalidArguments": "invalid-arguments",
    "InvalidSetting": "invalid-setting",
    "PayloadTooLarge": "payload-too-large",
    "NotEncodable": "not-encodable",
    "KeyReused": "key-reused",
    "RunNotFound": "run-not-found",
    "InvalidTransition": "invalid-transition",
    "StoreError": "store",
    "StoreUnavailable": "store-unavailable",
    "NotAStore": "not-a-store",
    "StoreTooNew": "store-too-new",
    "StoreOutdated": "store-outdated",
    "StoreFull": "store-full",
    "TransactionTooLong": "transaction-too-long",
    "TransactionRefused": "transaction-refused",
    "LeaseLost": "lease-lost",
    "Overloaded": "overloaded",
    "ShuttingDown": "shutting-down",
    "ResultTimeout": "result-timeout",
    "RunFailure": "run-failure",
    "RunFailed": "run-failed",
    "RunTimedOut": "run-timed-out",
    "RunCrashed": "run-crashed",
    "RunCancelled": "run-cancelled",
    "RunOutcomeUnknown": "run-outcome-unknown",
}
"""Published: a code may be added, and none may change."""
PASSING = {"StoreUnavailable", "StoreFull", "Overloaded", "ShuttingDown", "ResultTimeout"}
"""Errors after which doing the same again later may succeed."""

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LineshaftError)
]


def test_codes_are_as_published() -> None:
    assert {kind.__name__: kind.code for kind in KINDS} == CODES
    assert len(set(CODES.values())) == len(CODES)


def test_which_errors_pass() -> None:
    assert {kind.__name__ for kind in KINDS if kind.retryable} == PASSING


def test_the_tree_is_drawn_as_it_is() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+)", errors.__doc__, re.MULTILINE)
    path: list[str] = []
    found = {}
    for branches, name in drawn:
        path = [*path[: len(branches) // 4], name]
        found[name] = path[-2] if len(path) > 1 else None
    bases = {kind.__name__: kind.__mro__[1].__name__ for kind in KINDS}
    # One stands below the tree, in a sentence of its own.
    assert bases.pop("ResultTimeout") == "LineshaftError"
    assert found == {**bases, "LineshaftError": None}


def test_what_an_error_says() -> None:
    assert str(LineshaftError("It is broken.")) == "It is broken."
    error = LineshaftError("It is broken.", hint="Mend it.")
    assert str(error) == "It is broken. Mend it."
    assert (error.message, error.hint, error.args) == ("It is broken.", "Mend it.", ("It is broken.",))


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_the_way_between_processes(kind: type[LineshaftError]) -> None:
    # As others do it; Lineshaft itself pickles nothing.
    for there in (pickle.loads(pickle.dumps(kind("No.", hint="Yes."))), copy.copy(kind("No.", hint="Yes."))):
        assert type(there) is kind
        assert (there.message, there.hint) == ("No.", "Yes.")
