"""How SQLite carries out the statements of the store over large tables: by index, without sorting, at the same cost.

No statement can be forgotten: all that stand in the source are collected, and each must be executed by a use of the
store that is judged here (`HOT`), or by one that need not be fast, for the reason given (`COLD`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lineshaft.core import bounds
from lineshaft.core.clock import SystemClock
from lineshaft.core.states import State
from lineshaft.store.sqlite import (
    cancelling,
    claims,
    connection,
    gates,
    leases,
    listening,
    pruning,
    reads,
    retrying,
    schema,
    settlement,
    submissions,
)
from lineshaft.store.sqlite.alive import Alive
from lineshaft.store.sqlite.files import StoreFiles
from lineshaft.store.sqlite.pokes import Pokes
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import (
    Claimed,
    ClaimRequest,
    LaneShare,
    News,
    NewWorker,
    OpenLane,
    Outcome,
    Pace,
    RunFilter,
    Slots,
)
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import ANYWHERE_US, Hand, World, a_key, a_lane
from tests.integration.plans import Plan, Recording, connect, grow, statements, statements_in

Use = Callable[[sqlite3.Connection], Any]

WORLD = World(VirtualClock(), lambda: None)
HAND = Hand(WORLD, None, ("greet",))  # type: ignore[arg-type]  # it only plans
HAND.id = 1
OTHER = Hand(WORLD, None, ("other",))  # type: ignore[arg-type]
OTHER.id = 2
GATES = (Slots("task:greet", 50), Pace("task:greet/rate", 50, 1_000_000))
LARGE = b'"' + b"x" * 5_000 + b'"'
"""A payload that lies outside its run's row."""

# ------------------------------------------------------------------------ what the uses are made of


class Somebody(Alive):
    """All workers live, but some."""

    def __init__(self, dead: Sequence[int] = ()) -> None:
        super().__init__(Path("nobody"))
        self._dead = dead

    def take(self, worker: int) -> bool:
        return True

    def drop(self, worker: int) -> None:
        pass

    def is_dead(self, worker: int) -> bool:
        return worker in self._dead


def registry(*dead: int) -> leases.Registry:
    return leases.Registry(WORLD.clock, Somebody(dead))


def register(c: sqlite3.Connection, *tasks: str) -> int:
    known = tuple((task, "1") for task in tasks)
    [worker] = registry().register(c, [NewWorker("workshop", 1, 0, (), known, 15_000_000)])
    return worker


def request(
    rows_max: int = 20,
    *,
    hand: Hand = HAND,
    gated: bool = True,
    plan: Callable[[Sequence[OpenLane]], Sequence[LaneShare]] | None = None,
    after_lane: int = -1,
    later_us: int = 0,
) -> ClaimRequest:
    plan = plan or hand.everything(rows_max, GATES if gated else ())
    return ClaimRequest(hand.id, WORLD.clock.now_us() + later_us, plan, after_lane, idle=True)


def taken(c: sqlite3.Connection, wanted: ClaimRequest) -> Sequence[Claimed]:
    c.execute("UPDATE lineshaft_pace SET arrival_ns = 0")
    c.execute("UPDATE lineshaft_slot SET held = 0")
    [reply] = claims.claim(c, [wanted])
    assert reply.runs
    return reply.runs


def outcomes(c: sqlite3.Connection, state: State) -> list[Outcome]:
    return [HAND.ended(run, state, result=LARGE, slots=GATES) for run in taken(c, request())]


def some_ids(c: sqlite3.Connection, table: str = "lineshaft_run") -> list[str]:
    rows = sqlite3.Connection.execute(c, f"SELECT id FROM {table} WHERE state <> 'running' LIMIT 5")
    return [row[0] for row in rows]


# ------------------------------------------------------------------------------- a small and a large store

TIMES = 35
"""So many times more rows there are in the large store."""
ROWS = 100_000
"""Runs, finished runs and keys in it, at least."""


def fill(c: sqlite3.Connection, finished: int, queued: int, few: int) -> None:
    """Runs in every state, and rows in every table. Worker 1 is idle, and knows one task of several."""

    def submit(count: int, task: str, tenant: str, **options: Any) -> None:
        lane = a_lane(task, tenant=tenant)
        runs = [WORLD.new(lane, key=a_key(f"{tenant}-{n}"), **options) for n in range(count)]
        submissions.submit(c, runs)

    def settle(runs: Sequence[Claimed], state: State, **options: Any) -> None:
        settlement.settle(c, [OTHER.ended(run, state, **options) for run in runs])

    c.execute("BEGIN")
    assert [register(c, "greet"), register(c, "other"), register(c, "other")] == [HAND.id, OTHER.id, 3]
    everything = request(finished, hand=OTHER, gated=False)
    # Finished at the second attempt, some in vain, and some with a large result.
    submit(finished, "other", "finished")
    settle(taken(c, everything), State.READY)  # for another attempt
    runs = taken(c, everything)
    assert len(runs) == finished
    settle(runs[:few], State.FAILED)
    settle(runs[few : 2 * few], State.SUCCEEDED, result=LARGE)
    settle(runs[2 * few :], State.SUCCEEDED)
    # Parked: refused by the code, or known to nobody.
    submit(few, "other", "refused")
    settle(taken(c, everything), State.PARKED, charged=False)
    submit(few, "unknown", "parked")
    assert leases.park(c, [0]) == [few]
    # Executing, and suspect.
    submit(few, "other", "held")
    held = taken(c, everything._replace(worker=3))
    settlement.report(c, [(run.id, b"[1]") for run in held])
    submit(few, "other", "suspect")
    assert len(taken(c, everything)) == few
    assert registry(OTHER.id).rescue(c, [WORLD.clock.now_us()])[0].suspects == few
    # Due later, and ready.
    submit(few, "greet", "large", delay_s=9, args=LARGE)
    submit(queued, "greet", "later", delay_s=9)
    submit(queued, "greet", "acme")
    submit(queued, "greet", "zeta")
    c.execute("COMMIT")


def filled(path: Path, finished: int = 3_000, queued: int = 1_000, few: int = 30) -> Recording:
    files = StoreFiles(path)
    schema.migrate(files)
    files.close()
    c = connect(path)
    c.execute("PRAGMA synchronous = OFF")
    fill(c, finished, queued, few)
    return c


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    c = filled(tmp_path_factory.mktemp("small") / "store.db")
    yield c
    c.close()


@pytest.fixture(scope="module")
def large_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "store.db"
    c = filled(path)
    grow(c, TIMES)
    for table in ("run", "run_history", "key"):
        assert c.execute(f"SELECT count(*) FROM lineshaft_{table}").fetchone()[0] >= ROWS
    c.close()
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["new", "analysed"])
def large(large_path: Path, request: pytest.FixtureRequest) -> Iterator[Recording]:
    """The large store; with statistics of the tables at hand the planner may choose otherwise."""
    c = connect(large_path)
    analysed = "SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'"
    assert c.execute(analysed).fetchone() == (0,), "the new one comes first"
    if request.param:
        c.execute("ANALYZE")
        c.close()
        c = connect(large_path)
    yield c
    c.close()


# ----------------------------------------------------------------------------------------- uses of the store


def settled(state: State, c: sqlite3.Connection) -> None:
    settlement.settle(c, outcomes(c, state))


def settled_too_late(c: sqlite3.Connection) -> None:
    """A flush in which some fences were lost."""
    late = outcomes(c, State.SUCCEEDED)
    settlement.settle(c, late[:3])
    assert settlement.settle(c, late).count(False) == 3


def claimed(c: sqlite3.Connection) -> None:
    [reply, _] = claims.claim(c, [request(), request(after_lane=2**62)])
    assert reply.runs


def claimed_due(c: sqlite3.Connection) -> None:
    """What is due by now is promoted first, and large arguments are fetched."""
    [reply] = claims.claim(c, [request(1_000, gated=False, later_us=10_000_000)])
    assert any(len(run.args) >= len(LARGE) for run in reply.runs)


def claimed_suspects(c: sqlite3.Connection) -> None:
    [reply] = claims.claim(c, [request(hand=Hand(WORLD, None, ("other",)))])  # type: ignore[arg-type]
    assert not reply.runs  # nobody of that number
    [reply] = claims.claim(c, [request(hand=OTHER)._replace(worker=3)])
    assert reply.suspects_wait
    assert reply.runs


def rescued(c: sqlite3.Connection) -> None:
    """One was started at most once, one is to be cancelled, and of the others each may have killed the worker."""
    runs = outcomes(c, State.SUCCEEDED)
    settlement.mark_started(c, [(runs[0].run_id, runs[0].fence, 1, 1)])
    cancelling.cancel(c, [(runs[1].run_id, 0)])
    [report] = registry(1).rescue(c, [0])
    assert (report.suspects, len(report.unknown)) == (len(runs) - 2, 1)


def killer_rescued(c: sqlite3.Connection) -> None:
    def one_run(lanes: Sequence[OpenLane]) -> list[LaneShare]:
        return [LaneShare(lane.lane, 1, ANYWHERE_US) for lane in lanes if lane.lane.task == "greet"][:1]

    for crashes in range(bounds.CRASHES_MAX + 1):
        worker = register(c, "greet")
        [run] = taken(c, request(plan=one_run)._replace(worker=worker))
        assert run.crashes == crashes
        [report] = registry(worker).rescue(c, [0])
        c.execute("UPDATE lineshaft_run SET state = 'ready' WHERE id = ?", (run.id,))
    assert report.failed == (run.id,)


def left(c: sqlite3.Connection) -> None:
    outcomes(c, State.SUCCEEDED)
    registry().unregister(c, [1])


def parked(c: sqlite3.Connection) -> None:
    submissions.submit(c, [WORLD.new(a_lane("part"))])
    assert leases.park(c, [0]) == [1]
    register(c, "part")


def cancelled_at_work(c: sqlite3.Connection) -> None:
    [run, *_] = outcomes(c, State.CANCELLED)
    assert cancelling.cancel(c, [(run.run_id, 0)]) == [State.RUNNING]
    assert reads.cancel_requests(c, 1) == [run.run_id]


def retried(c: sqlite3.Connection) -> None:
    [failed] = reads.listing(c, RunFilter(states=frozenset({State.FAILED}), rows_max=1))
    new = WORLD.new(failed.lane, key=a_key(str(failed.key)), retry_of=failed.id, first_id=failed.first_id)
    retrying.retry(c, [new])


def pruned(c: sqlite3.Connection) -> None:
    [gone] = pruning.prune(c, [(2**52, 2**52)])
    assert gone.runs == gone.keys == bounds.PRUNE_ROWS_MAX


def listened(c: sqlite3.Connection) -> None:
    listening._announce(c, ["here"])
    listening.forget(c, ["here"])
    pokes = Pokes()
    told = listening.Listening(SimpleNamespace(connect=lambda: c), pokes, SystemClock())  # type: ignore[arg-type]
    told.committed(News.WORK)
    pokes.close()


def joined(c: sqlite3.Connection) -> None:
    [row] = sqlite3.Connection.execute(c, "PRAGMA database_list").fetchall()
    own = connection.open_connection(Path(row[2]))
    own.close()
    with pytest.raises(connection.TransactionRefused):
        connection.require_safe_to_join(c, Path(row[2]))


HOT: dict[str, Use] = {
    "submit": lambda c: submissions.submit(c, [WORLD.new(key=a_key(f"new-{n}")) for n in range(9)]),
    "submit large": lambda c: submissions.submit(c, [WORLD.new(args=LARGE)]),
    "join": joined,
    "claim": claimed,
    "claim what is due": claimed_due,
    "claim suspects": claimed_suspects,
    "settle as succeeded": partial(settled, State.SUCCEEDED),
    "settle as failed": partial(settled, State.FAILED),
    "settle for a retry": partial(settled, State.SCHEDULED),
    "settle too late": settled_too_late,
    "hand back": partial(settled, State.READY),
    "refuse": partial(settled, State.PARKED),
    "mark started": lambda c: settlement.mark_started(c, [("x", 1, 1, 1)]),
    "report": lambda c: settlement.report(c, [(some_ids(c)[0], b"[1]")]),
    "register": lambda c: register(c, "greet"),
    "beat": lambda c: registry().beat(c, [(1, 1)]),
    "leave": left,
    "rescue": rescued,
    "rescue a killer": killer_rescued,
    "park": parked,
    "cancel": lambda c: cancelling.cancel(c, [(run_id, 0) for run_id in some_ids(c)]),
    "cancel what executes": cancelled_at_work,
    "retry": retried,
    "prune": pruned,
    "listen": listened,
    "held": lambda c: reads.held(c, 1),
    "view": lambda c: reads.view(c, some_ids(c)),
    "view what has finished": lambda c: reads.view(c, some_ids(c, "lineshaft_run_history")),
    "finished": lambda c: reads.finished(c, some_ids(c, "lineshaft_run_history")),
    "attempts": lambda c: reads.attempts(c, some_ids(c, "lineshaft_run_history")[0]),
    "progress": lambda c: reads.progress(c, some_ids(c)[0]),
    "workers": lambda c: reads.workers(registry(), c),
    "slots": reads.slots,
    "rate": lambda c: reads.pace_open_us(c, GATES[1]),  # type: ignore[arg-type]
    "ahead": lambda c: reads.ahead(c, some_ids(c)[0], 10),
    "retried by": lambda c: reads.retried_by(c, some_ids(c)[0]),
    "newest": lambda c: reads.listing(c, RunFilter(rows_max=10)),
    "failures": lambda c: reads.listing(c, RunFilter(states=frozenset({State.FAILED}), rows_max=10)),
}

COLD: dict[str, tuple[Use, str]] = {
    "queues": (reads.queues, "a person asks for it, or a program now and then; exact counts have to count"),
    "counts": (reads.counts, "as for the queues"),
    "filtered": (
        lambda c: reads.listing(c, RunFilter(tenants=frozenset({"nobody"}), rows_max=10)),
        "a person asks for it; what few runs fit is looked for among all",
    ),
}
UNHEARD = {
    "store/sqlite/backups.py": "executed once, on a copy that nobody uses yet, when a backup is restored",
    "store/sqlite/schema.py": "looks at tables of SQLite's own, when a store is opened",
    "testing/": "tests, which use stores of their own",
}
"""Where there are statements that are not executed here."""

SORTED = {
    gates._HELD: "sums up the slots of a few limits by worker",
    leases._READY_LANES: "a sweep now and then, over lanes, not runs",
}
_REGISTERS = "a worker that registers asks about all parked runs that the code of others refused"
GROWS = {"register": _REGISTERS, "park": _REGISTERS, "rescue a killer": _REGISTERS}


# ------------------------------------------------------------------------------------------------- the tests


def wrong(plans: Sequence[Plan]) -> list[Plan]:
    return [plan for plan in plans if plan.scans() or (plan.sorts() and plan.statement not in SORTED)]


@pytest.mark.parametrize("name", HOT)
def test_hot_statements_go_by_index_and_sort_nothing(large: Recording, name: str) -> None:
    found = wrong(large.explained(HOT[name]))
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("name", [name for name in HOT if name not in GROWS])
def test_hot_uses_cost_the_same_however_large_the_tables_are(
    small: Recording, large: Recording, name: str
) -> None:
    assert not costs_more(small, large, HOT[name])


def costs_more(small: Recording, large: Recording, use: Use) -> bool:
    """Whether a use takes more steps than fuller batches, and a glance at all lanes, explain."""
    return large.counted(use) > 1.25 * small.counted(use) + 5_000


def test_every_exception_is_needed(small: Recording, large: Recording) -> None:
    for use, _ in COLD.values():
        assert costs_more(small, large, use)
    for name in GROWS:
        assert costs_more(small, large, HOT[name])
    sorted_ = {plan.statement for use in HOT.values() for plan in large.explained(use) if plan.sorts()}
    assert sorted_ == SORTED.keys()


def test_no_statement_in_the_source_is_forgotten(small: Recording) -> None:
    uses = [*HOT.values(), *(use for use, _ in COLD.values())]
    heard = {plan.statement for use in uses for plan in small.explained(use)}
    found = [each for each in statements() if not each.where.startswith(tuple(UNHEARD))]
    assert len(found) > 50
    missing = [each.where for each in found if not any(each.fits(text) for text in heard)]
    assert not missing, f"nothing here executes {missing}; add a use to HOT, or to COLD with a reason"


def test_statements_are_found_wherever_they_are_written() -> None:
    found = list(
        statements_in(
            """
def use(connection, table):
    connection.execute(f"DELETE FROM {table} WHERE id = ?", (1,))
STATEMENTS = {"all": "SELECT * FROM lineshaft_run", "text": "one to SELECT from"}
""",
            "a.py",
        )
    )
    assert [each.where for each in found] == ["a.py:3", "a.py:4"]
    assert found[0].fits("DELETE FROM lineshaft_key WHERE id = ?")
    assert not found[0].fits("DELETE FROM lineshaft_key")


def test_scans_and_sorts_are_found(large: Recording) -> None:
    def plan(statement: str) -> Plan:
        [found] = large.explained(lambda c: c.execute(statement))
        return found

    assert plan("SELECT id FROM lineshaft_run AS run WHERE run.priority = 3").scans()
    assert plan("SELECT count(*) FROM lineshaft_run_history WHERE state <> 'succeeded'").scans()
    assert plan("SELECT id FROM lineshaft_run ORDER BY priority").sorts()
    assert not wrong([plan("SELECT id FROM lineshaft_run WHERE id = 'x' ORDER BY id")])


def test_a_use_that_walks_on_is_found(small: Recording, large: Recording) -> None:
    # By index, and yet through all that is ready in a lane.
    walk = "SELECT count(*) FROM lineshaft_run WHERE state = 'ready' AND suspect IS NULL AND lane > 0"
    assert not wrong(large.explained(lambda c: c.execute(walk)))
    assert costs_more(small, large, lambda c: c.execute(walk).fetchone())


async def test_statistics_of_a_time_when_the_queue_was_short_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    filled(path, 20, 8, 3).close()
    c = connect(path)
    c.execute("CREATE TABLE theirs (id INTEGER PRIMARY KEY, name TEXT)")
    c.execute("CREATE INDEX theirs_name ON theirs (name)")
    c.execute("INSERT INTO theirs (name) VALUES ('one')")
    c.execute("ANALYZE")
    noted = "SELECT DISTINCT tbl FROM sqlite_stat1 ORDER BY tbl"
    assert ("lineshaft_run",) in c.execute(noted).fetchall()
    store = SqliteStore(path, WORLD.clock)
    assert c.execute(noted).fetchall() == [("theirs",)]
    await store.close()
    c.close()
