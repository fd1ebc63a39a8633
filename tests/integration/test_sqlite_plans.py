"""How SQLite carries out the hot statements: by index, without sorting, whatever else lies in the tables.

The statements are those that the store really executes: a recording connection hears them, and explains each.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lineshaft.core import bounds
from lineshaft.core.states import State
from lineshaft.store.sqlite import (
    cancelling,
    claims,
    gates,
    leases,
    pruning,
    reads,
    retrying,
    settlement,
    submissions,
)
from lineshaft.store.sqlite.alive import Alive
from lineshaft.store.sqlite.files import StoreFiles
from lineshaft.store.sqlite.schema import migrate
from lineshaft.store.values import (
    ClaimRequest,
    LaneShare,
    NewWorker,
    OpenLane,
    Outcome,
    Pace,
    RunFilter,
    Slots,
)
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import ANYWHERE_US, Hand, World, a_key, a_lane

BIG = {"lineshaft_run", "lineshaft_run_history", "lineshaft_key", "lineshaft_attempt", "lineshaft_payload"}
"""Tables that grow with the work; the others have a row for a worker, a limit, a lane."""
ONLY_PARKED = "USING INDEX lineshaft_run_parked"
"""An index of just the rows that the one statement which reads all of it is about."""
GATES = (Slots("task:greet", 50), Pace("task:greet/rate", 50, 1_000_000))


@dataclass
class Plan:
    """One statement, and the steps by which it is carried out."""

    statement: str
    steps: list[str] = field(default_factory=list)

    def scans(self) -> list[str]:
        """Steps that read all of a big table or of an index over it."""
        names = BIG | {alias for alias, table in aliases(self.statement).items() if table in BIG}
        scans = [step for step in self.steps if re.sub("SCAN ([^ ]+).*", r"\1", step) in names]
        return [step for step in scans if not step.endswith(ONLY_PARKED)]

    def sorts(self) -> list[str]:
        return [step for step in self.steps if "TEMP B-TREE" in step]

    def __str__(self) -> str:
        return "\n".join([self.statement.strip(), *(f"    {step}" for step in self.steps)])


def aliases(statement: str) -> dict[str, str]:
    return {alias: table for table, alias in re.findall(r"(lineshaft_\w+)\s+AS\s+(\w+)", statement)}


class Recording(sqlite3.Connection):
    """A connection that keeps the plan of every statement it executes."""

    plans: dict[str, Plan]

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if (
            statement.split(maxsplit=1)[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
            and statement not in self.plans
        ):
            explained = super().execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            self.plans[statement] = Plan(statement, [row[3] for row in explained])
        return super().execute(statement, parameters)

    def explained(self, use: Callable[[sqlite3.Connection], Any]) -> list[Plan]:
        """The plans of what a use of the store executes; what it changed is rolled back."""
        self.plans = {}
        self.execute("BEGIN")
        use(self)
        self.execute("ROLLBACK")
        assert self.plans
        return list(self.plans.values())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Recording]:
    """A store with something in every table, held by worker 1."""
    files = StoreFiles(tmp_path / "store.db")
    migrate(files)
    connection = sqlite3.connect(files.path, isolation_level=None, factory=Recording)
    connection.plans = {}
    connection.execute("BEGIN")
    assert register(connection) == [1]
    for tenant in ("acme", "zeta"):
        submissions.submit(
            connection, [WORLD.new(a_lane(tenant=tenant), key=a_key(f"k{n}")) for n in range(99)]
        )
    submissions.submit(connection, [WORLD.new(delay_s=9, args=b'"' + b"x" * 9_000 + b'"') for _ in range(99)])
    settlement.settle(connection, outcomes(connection, State.SUCCEEDED, 30))
    settlement.settle(connection, outcomes(connection, State.SCHEDULED, 30))
    connection.execute("COMMIT")
    yield connection
    connection.close()
    files.close()


WORLD = World(VirtualClock(), lambda: None)
HAND = Hand(WORLD, None, ("greet",))  # type: ignore[arg-type]  # it only plans
HAND.id = 1


class Nobody(Alive):
    """Nobody is in any process, or everybody was."""

    def __init__(self, *, dead: bool) -> None:
        super().__init__(Path("nobody"))
        self._dead = dead

    def take(self, worker: int) -> bool:
        return True

    def drop(self, worker: int) -> None:
        pass

    def is_dead(self, worker: int) -> bool:
        return self._dead


def registry(*, dead: bool = False) -> leases.Registry:
    clock = VirtualClock()
    if dead:
        clock.advance(3_600)
    return leases.Registry(clock, Nobody(dead=dead))


def register(connection: sqlite3.Connection) -> list[int]:
    return list(
        registry().register(connection, [NewWorker("workshop", 1, 0, (), (("greet", "1"),), 15_000_000)])
    )


def request(after_lane: int = -1, rows_max: int = 20, **options: Any) -> ClaimRequest:
    plan = HAND.everything(rows_max, GATES)
    return ClaimRequest(1, WORLD.clock.now_us() + 10_000_000, plan, after_lane, idle=True, **options)


def open_gates(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE lineshaft_pace SET arrival_ns = 0")
    connection.execute("UPDATE lineshaft_slot SET held = 0")


def one_run(lanes: Sequence[OpenLane]) -> list[LaneShare]:
    return [LaneShare(lanes[0].lane, 1, ANYWHERE_US)]


def outcomes(connection: sqlite3.Connection, state: State, count: int = 20) -> list[Outcome]:
    open_gates(connection)
    [reply] = claims.claim(connection, [request(rows_max=count)])
    assert reply.runs
    large = b'"' + b"y" * 9_000 + b'"'
    return [HAND.ended(run, state, result=large, slots=GATES) for run in reply.runs]


def settled(state: State, connection: sqlite3.Connection) -> None:
    settlement.settle(connection, outcomes(connection, state))


def claimed(connection: sqlite3.Connection) -> None:
    claims.claim(connection, [request(), request(after_lane=2**62)])


def suspects_claimed(connection: sqlite3.Connection) -> None:
    for group, run_id in enumerate(some_ids(connection)):
        connection.execute("UPDATE lineshaft_run SET suspect = ? WHERE id = ?", (group, run_id))
    open_gates(connection)
    [reply] = claims.claim(connection, [request()])
    assert reply.suspects_wait
    unknown = replace(request(), plan=lambda _: [])
    assert not claims.claim(connection, [unknown])[0].runs


def large_claimed(connection: sqlite3.Connection) -> None:
    [reply] = claims.claim(connection, [replace(request(), plan=HAND.everything(1_000))])
    assert any(len(run.args) > 5_000 for run in reply.runs)


def killer_rescued(connection: sqlite3.Connection) -> None:
    for _ in range(bounds.CRASHES_MAX + 1):
        [worker] = register(connection)
        [reply] = claims.claim(connection, [replace(request(), worker=worker, plan=one_run)])
        [run_id] = [run.id for run in reply.runs]
        registry(dead=True).rescue(connection, [0])
        connection.execute("UPDATE lineshaft_run SET state = 'ready' WHERE id = ?", (run_id,))


def rescued(connection: sqlite3.Connection) -> None:
    runs = outcomes(connection, State.SUCCEEDED)
    settlement.mark_started(connection, [(runs[0].run_id, runs[0].fence, 1, 1)])
    connection.execute("UPDATE lineshaft_run SET cancel_requested = 1 WHERE id = ?", (runs[1].run_id,))
    assert registry(dead=True).rescue(connection, [0])[0].returned


def left(connection: sqlite3.Connection) -> None:
    outcomes(connection, State.SUCCEEDED)
    registry().unregister(connection, [1])


def parked(connection: sqlite3.Connection) -> None:
    submissions.submit(connection, [WORLD.new(a_lane("part"))])
    assert leases.park(connection, [0]) == [1]
    [refused, *_] = outcomes(connection, State.PARKED)
    settlement.settle(connection, [refused])
    registry().register(connection, [NewWorker("w", 1, 0, (), (("part", "1"),), 1)])


def retried(connection: sqlite3.Connection) -> None:
    failed = outcomes(connection, State.FAILED)
    settlement.settle(connection, failed)
    retrying.retry(connection, [WORLD.new(retry_of=failed[0].run_id, first_id=failed[0].run_id)])


def some_ids(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in sqlite3.Connection.execute(connection, "SELECT id FROM lineshaft_run LIMIT 5")]


HOT: dict[str, Callable[[sqlite3.Connection], Any]] = {
    "submit": lambda c: submissions.submit(c, [WORLD.new(key=a_key(f"new-{n}")) for n in range(9)]),
    "submit large": lambda c: submissions.submit(c, [WORLD.new(args=b'"' + b"x" * 9_000 + b'"')]),
    "claim": claimed,
    "claim large": large_claimed,
    "claim suspects": suspects_claimed,
    "settle as succeeded": partial(settled, State.SUCCEEDED),
    "settle as failed": partial(settled, State.FAILED),
    "settle for a retry": partial(settled, State.SCHEDULED),
    "hand back": partial(settled, State.READY),
    "mark started": lambda c: settlement.mark_started(c, [("x", 1, 1, 1)]),
    "report": lambda c: settlement.report(c, [(some_ids(c)[0], b"[1]")]),
    "register": register,
    "beat": lambda c: registry().beat(c, [(1, 1)]),
    "leave": left,
    "rescue": rescued,
    "rescue a killer": killer_rescued,
    "park": parked,
    "cancel": lambda c: cancelling.cancel(c, [(run_id, 0) for run_id in some_ids(c)]),
    "cancel what runs": lambda c: cancelling.cancel(c, [(outcomes(c, State.CANCELLED)[0].run_id, 0)]),
    "cancel requests": lambda c: reads.cancel_requests(c, 1),
    "retry": retried,
    "prune": lambda c: pruning.prune(c, [(2**52, 2**52)]),
    "view": lambda c: reads.view(c, some_ids(c)),
    "finished": lambda c: reads.finished(c, some_ids(c)),
    "attempts": lambda c: reads.attempts(c, some_ids(c)[0]),
    "progress": lambda c: reads.progress(c, some_ids(c)[0]),
    "slots": reads.slots,
    "rate": lambda c: reads.pace_open_us(c, GATES[1]),
    "ahead": lambda c: reads.ahead(c, some_ids(c)[0], 10),
    "retried by": lambda c: reads.retried_by(c, some_ids(c)[0]),
    "failures": lambda c: reads.listing(c, RunFilter(states=frozenset({State.FAILED}), rows_max=10)),
}


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("name", HOT)
def test_hot_statements_go_by_index(database: Recording, name: str, analyzed: bool) -> None:
    if analyzed:
        # With statistics of the tables at hand the planner may choose otherwise.
        database.execute("ANALYZE")
    plans = database.explained(HOT[name])
    wrong = [plan for plan in plans if plan.scans()]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("name", ["submit", "claim", "settle as succeeded", "settle for a retry"])
def test_the_hottest_statements_sort_nothing(database: Recording, name: str) -> None:
    plans = database.explained(HOT[name])
    wrong = [plan for plan in plans if plan.sorts() and "lineshaft_slot" not in plan.statement]
    assert not wrong, "\n".join(map(str, wrong))


def test_a_scan_and_a_sort_are_found(database: Recording) -> None:
    [plan] = database.explained(
        lambda c: c.execute("SELECT id FROM lineshaft_run AS run WHERE run.priority = 3")
    )
    assert plan.scans()
    [plan] = database.explained(lambda c: c.execute("SELECT id FROM lineshaft_run ORDER BY priority"))
    assert plan.scans()
    assert plan.sorts()
    [plan] = database.explained(lambda c: c.execute("SELECT id FROM lineshaft_run WHERE id = 'x'"))
    assert not plan.scans()


def test_every_module_of_statements_is_among_them(database: Recording) -> None:
    heard = {plan.statement for use in HOT.values() for plan in database.explained(use)}
    for module in (claims, gates, leases, settlement, submissions, cancelling, pruning):
        statements = {value for name, value in vars(module).items() if is_statement(value)}
        assert statements
        missing = statements - heard
        assert not missing, f"{module.__name__} has statements that nothing here executes: {missing}"


def is_statement(value: Any) -> bool:
    return isinstance(value, str) and value.strip().startswith(
        ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
    )
