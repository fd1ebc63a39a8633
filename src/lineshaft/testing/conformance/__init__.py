"""What every store has to do, as tests: one class for each port of `lineshaft.store.port`.

A backend's test module says how its store is opened, and inherits:

    class MyBackend:
        async def open_store(self, tmp_path, clock): ...

    class TestSubmissions(MyBackend, conformance.Submissions): ...
    class TestClaims(MyBackend, conformance.Claims): ...

and so on with `Leases`, `Reads`, `Operations`, `Transactions` and `Wakes`. What a backend cannot do it names in
`lacks`, with the reason (see `harness.Capability`); the tests of that capability are skipped with it, and no
others. Needs pytest and pytest-asyncio.
"""

import pytest

# Before the suites are imported, so that their assertions say what they compared.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "claims",
            "harness",
            "killers",
            "leases",
            "limits",
            "operations",
            "reads",
            "settling",
            "submissions",
            "transactions",
            "wakes",
        )
    )
)

from lineshaft.testing.conformance.claims import Claims  # noqa: E402  # the registration above comes first
from lineshaft.testing.conformance.harness import Capability, Conformance  # noqa: E402
from lineshaft.testing.conformance.leases import Leases  # noqa: E402
from lineshaft.testing.conformance.operations import Operations  # noqa: E402
from lineshaft.testing.conformance.reads import Reads  # noqa: E402
from lineshaft.testing.conformance.submissions import Submissions  # noqa: E402
from lineshaft.testing.conformance.transactions import Transactions  # noqa: E402
from lineshaft.testing.conformance.wakes import Wakes  # noqa: E402

__all__ = [
    "Capability",
    "Claims",
    "Conformance",
    "Leases",
    "Operations",
    "Reads",
    "Submissions",
    "Transactions",
    "Wakes",
]
