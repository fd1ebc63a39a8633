"""The suites are not hollow: a store with a fault planted in it fails the test that is there for it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lineshaft.core.errors import LineshaftError
from lineshaft.store.sqlite import claims, gates, leases, settlement, submissions
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.testing import conformance
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import World


@dataclass(frozen=True)
class Fault:
    """Text in statements of a module that is replaced, and the test that has to notice."""

    module: Any
    right: str
    wrong: str
    suite: type[conformance.Conformance]
    test: str


FAULTS = {
    "no fence check": Fault(
        settlement,
        "AND run.fence = (outcome.value ->> 1) AND run.worker = (outcome.value ->> 2)",
        "",
        conformance.Claims,
        "test_who_lost_the_fence_settles_nothing",
    ),
    "the fence does not rise": Fault(
        claims,
        "fence = fence + 1",
        "fence = fence",
        conformance.Claims,
        "test_the_fence_rises_with_each_claim",
    ),
    "scheduled runs start early": Fault(
        claims, "due_us <= ?1", "true", conformance.Claims, "test_nothing_starts_before_it_is_due"
    ),
    "no order inside a lane": Fault(
        claims,
        "ORDER BY head.order_us LIMIT",
        "ORDER BY head.id LIMIT",
        conformance.Claims,
        "test_small_claims_keep_the_order",
    ),
    "slots are not counted": Fault(
        gates, "sum(slot.held)", "0", conformance.Claims, "test_no_more_are_held_than_there_are_slots"
    ),
    "slots of the dead are kept": Fault(
        leases,
        "DELETE FROM lineshaft_slot WHERE worker = ?1",
        "DELETE FROM lineshaft_slot WHERE worker = -?1",
        conformance.Claims,
        "test_slots_come_back_with_the_lease_of_the_dead",
    ),
    "a rate is forgotten": Fault(
        gates,
        "DO UPDATE SET arrival_ns = excluded.arrival_ns",
        "DO NOTHING",
        conformance.Claims,
        "test_a_burst_is_followed_by_an_even_flow",
    ),
    "neighbours are charged": Fault(
        leases,
        "SET state = 'ready', worker = NULL, suspect = ?2",
        "SET state = 'ready', worker = NULL, crashes = crashes + 1, suspect = ?2",
        conformance.Leases,
        "test_a_run_of_a_dead_worker_returns_uncharged",
    ),
    "a key is never taken": Fault(
        submissions,
        "INSERT OR REPLACE INTO lineshaft_key",
        "INSERT OR REPLACE INTO elsewhere",
        conformance.Submissions,
        "test_the_same_key_gives_the_same_run",
    ),
    "keys last for ever": Fault(
        settlement,
        "SET expires_us = retention_us + (",
        "SET expires_us = retention_us + 2 * (",
        conformance.Submissions,
        "test_retention_counts_from_the_finish",
    ),
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = VirtualClock()

    async def open_another() -> SqliteStore:
        return SqliteStore(tmp_path / "store.db", clock)

    world = World(clock, open_another)
    await world.open()
    world.store.connect().execute("CREATE TABLE elsewhere AS SELECT * FROM lineshaft_key").connection.close()
    yield world
    await world.close()


def test_every_fault_names_a_test_that_there_is() -> None:
    for fault in FAULTS.values():
        assert inspect.iscoroutinefunction(getattr(fault.suite, fault.test))


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("name", FAULTS)
async def test_a_planted_fault_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, planted: bool
) -> None:
    fault = FAULTS[name]
    test: Callable[[World], Any] = getattr(fault.suite(), fault.test)
    if not planted:
        await test(world)
        return
    statements = {
        key: text for key, text in vars(fault.module).items() if isinstance(text, str) and fault.right in text
    }
    assert statements, f"{fault.module.__name__} no longer says {fault.right!r}"
    for key, text in statements.items():
        monkeypatch.setattr(fault.module, key, text.replace(fault.right, fault.wrong))
    with pytest.raises((AssertionError, LineshaftError)):
        await test(world)
