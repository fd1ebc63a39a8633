"""The power fails, at any moment of ordinary work: what was accepted is there afterwards (FAILURES row 12).

Real workers and submitters run over a VFS that records every write and sync. From the record the test builds the
files as they can be found after a loss of power, many times over, opens each with the real store, and compares
with what had been promised until then.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lineshaft import State
from lineshaft.core.errors import LineshaftError
from lineshaft.store.sqlite.store import SqliteStore
from tests.crash.os_forgetful_disk import ForgetfulDisk
from tests.crash.os_processes import PATIENCE_S, Scenario, stop
from tests.crash.os_record import entries

LOSSES = 40
"""Times that the power fails in one record."""
WORKED_OFF = 2
"""Of them, how many a worker is started after."""


@dataclass(slots=True)
class Promises:
    """What users had been told until the power failed."""

    made: bool = False
    accepted: set[str] = field(default_factory=set)
    succeeded: set[str] = field(default_factory=set)

    def hear(self, what: str, facts: list) -> None:
        match what:
            case "made":
                self.made = True
            case "accepted":
                self.accepted |= {run_id for run_id, _ in facts[1]}
            case "succeeded":
                self.succeeded.add(facts[0])


@dataclass(frozen=True, slots=True)
class Found:
    """What a store holds after the loss."""

    is_sound: bool
    states: dict[str, State]
    booked: list[str]
    """Runs whose row is in the ledger, once for each row."""
    booked_by_outcome: set[str]
    """Runs whose outcome says that there is such a row."""

    def broken(self, promises: Promises) -> list[str]:
        """Which promises do not hold."""
        lost = promises.accepted - self.states.keys()
        forgotten = {run for run in promises.succeeded if self.states.get(run) is not State.SUCCEEDED}
        return [
            what
            for what, holds in (
                ("the file is damaged", self.is_sound),
                (f"{len(lost)} accepted runs are lost", not lost),
                (f"{len(forgotten)} outcomes are forgotten", not forgotten),
                ("effects and outcomes differ", sorted(self.booked) == sorted(self.booked_by_outcome)),
            )
            if not holds
        ]


def work_on_record(folder: Path, succeeded: int, *, sync_fails: bool = False, **environment: str) -> Scenario:
    """A worker and two submitters, with every write to their disk in the record."""
    recorded = {"OS_RECORD_DISK": "1", "OS_CHECKPOINTS": "often", "OS_SYNC_FAILS": str(folder / "fault")}
    scenario = Scenario(folder)
    with scenario:
        scenario.make_store(environment=recorded)
        given = {**recorded, **environment}
        worker = scenario.start("worker", "worker", environment=given)
        # A worker that cannot register does not start at all.
        scenario.until(lambda: scenario.told("working"))
        if sync_fails:
            (folder / "fault").write_text("0.2")
        submitters = [
            scenario.start("submitter", name, environment=given, kinds=kinds)
            for name, kinds in (("a", "book,note"), ("b", "note"))
        ]
        scenario.until(lambda: len(scenario.told("succeeded")) > succeeded)
        (folder / "fault").unlink(missing_ok=True)
        for process in (*submitters, worker):
            stop(process)
    return scenario


def losses(record: Path, chance: random.Random) -> Iterator[tuple[dict[str, bytes], Promises]]:
    """The files after each of many losses of power, and what had been promised."""
    written = list(entries(record))
    # Half of them right after a promise, when it is youngest.
    promised = [place for place, entry in enumerate(written) if entry.what == "told"]
    places = Counter(
        chance.choices(promised, k=LOSSES // 2) + chance.choices(range(len(written)), k=LOSSES // 2)
    )
    disk, promises = ForgetfulDisk(chance), Promises()
    for place, entry in enumerate(written):
        if entry.what == "told":
            promises.hear(entry.name, json.loads(entry.data))
        else:
            disk.follow(entry)
        for _ in range(places[place]):
            yield disk.files_after_power_loss(), promises


def recovered(folder: Path, files: dict[str, bytes]) -> Found:
    """Open what the loss left with the real store, and look."""
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    asyncio.run(SqliteStore(folder / "store.db").close())
    return look(folder / "store.db")


def look(path: Path) -> Found:
    connection = sqlite3.connect(path)
    try:
        if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            return Found(False, {}, [], set())
        states = connection.execute(
            "SELECT id, state FROM lineshaft_run UNION ALL SELECT id, state FROM lineshaft_run_history"
        ).fetchall()
        has_ledger = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger'").fetchone()
        booked = connection.execute("SELECT run FROM ledger").fetchall() if has_ledger else []
        by_outcome = connection.execute(
            "SELECT run.id FROM lineshaft_run_history AS run JOIN lineshaft_lane AS lane ON lane.id = run.lane"
            " WHERE lane.task = 'book' AND run.state = 'succeeded'"
        ).fetchall()
    finally:
        connection.close()
    return Found(
        True,
        {run: State(state) for run, state in states},
        [run for (run,) in booked],
        {run for (run,) in by_outcome},
    )


def broken_promises(folder: Path, record: Path) -> Counter[str]:
    """What does not hold after how many losses of power. After some of them the work goes on, and is finished."""
    chance = random.Random("power")
    after = folder / "after"
    after.mkdir()
    broken: Counter[str] = Counter()
    for number, (files, promises) in enumerate(losses(record, chance)):
        try:
            found = recovered(after, files)
            broken.update(found.broken(promises))
            if promises.made and number % (LOSSES // WORKED_OFF) == LOSSES // WORKED_OFF - 1:
                broken.update(worked_off(after).broken(promises))
        except (sqlite3.DatabaseError, LineshaftError) as error:
            broken[str(error)] += 1
    return broken


def worked_off(folder: Path) -> Found:
    """Let a worker finish what a store has, and look again."""
    with Scenario(folder) as scenario:
        worker = scenario.start("worker", "next")
        scenario.until(lambda: scenario.told("working"))
        connection = sqlite3.connect(scenario.store)
        scenario.until(lambda: connection.execute("SELECT count(*) FROM lineshaft_run").fetchone() == (0,))
        connection.close()
        stop(worker)
        return look(scenario.store)


@pytest.mark.parametrize("sync_fails", [False, True], ids=["sound", "one sync in five fails"])
def test_what_was_promised_survives_the_loss_of_power(tmp_path: Path, sync_fails: bool) -> None:
    scenario = work_on_record(tmp_path, 300, sync_fails=sync_fails)
    happened = Counter((entry.what, entry.name) for entry in entries(scenario.record))
    assert happened["write", "store.db"] > 100, "there were no checkpoints"
    assert happened["truncate", "store.db-wal"] > 3, "the log never started over from nothing"
    assert happened["sync", "store.db-wal"] > 100
    assert bool(happened["sync failed", "store.db-wal"]) is sync_fails
    assert len(scenario.accepted()) >= 300
    assert broken_promises(tmp_path, scenario.record) == {}


def test_a_weaker_setting_is_found_out(tmp_path: Path) -> None:
    """The test has teeth: with less than FULL, accepted runs are lost, and it sees that."""
    broken = broken_promises(tmp_path, work_on_record(tmp_path, 200, OS_SYNCHRONOUS="NORMAL").record)
    assert any("accepted runs are lost" in what for what in broken)
    assert any("outcomes are forgotten" in what for what in broken)


@pytest.mark.parametrize("at", ["submit", "checkpoint"])
def test_a_sync_that_failed_takes_no_earlier_commit_with_it(tmp_path: Path, at: str) -> None:
    """On a system that takes pages for written after a sync that failed (Linux with ext4 or XFS)."""
    recorded = {"OS_RECORD_DISK": "1", "OS_SYNC_FAILS": str(tmp_path / "fault")}
    with Scenario(tmp_path) as scenario:
        scenario.make_store(environment=recorded)
        assert scenario.start("unlucky", "unlucky", environment=recorded, at=at).wait(PATIENCE_S) == 0
    disk, promises = ForgetfulDisk(random.Random("treachery"), treacherous=True), Promises()
    happened = list(entries(scenario.record))
    accepted = max(place for place, entry in enumerate(happened) if entry.name == "accepted")
    for entry in happened[:accepted]:
        disk.follow(entry)
    promises.hear("accepted", json.loads(happened[accepted].data))
    assert any(entry.what == "sync failed" for entry in happened[:accepted])
    (tmp_path / "after").mkdir()
    assert recovered(tmp_path / "after", disk.files_after_power_loss()).broken(promises) == []
