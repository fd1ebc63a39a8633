"""The checker of the crash harness finds each broken promise: what is sound is spoilt in one way at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import checker
from tests.crash.harness import Site

SOUND = {
    "calls": 2,
    "calls_once": 2,
    "calls_again": 2,
    "books": 2,
    "books_again": 1,
    "books_many": 3,
    "books_and_submits": 1,
    "is_late": 1,
}
A_BOOKING = "(SELECT op FROM ended WHERE kind = 'books' LIMIT 1)"

SPOILT = {
    "a run that was accepted is lost": "DELETE FROM ended WHERE op = 'calls/site/0'",
    "an operation has two runs": """
        INSERT INTO ended SELECT 'other', op, kind, task, state, attempts, crashes, due_us, started_us, finished_us,
                                 retries, failure FROM ended WHERE op = 'calls/site/0'""",
    "an operation was accepted as two runs": "INSERT INTO accepted VALUES ('calls/site/0', 'other')",
    "a run ended as its kind never does": "UPDATE ended SET state = 'failed' WHERE op = 'calls/site/0'",
    "a transaction's effect is missing": f"DELETE FROM effects WHERE op = {A_BOOKING}",
    "a transaction's effect happened twice": f"INSERT INTO effects VALUES ({A_BOOKING}, 'booked', 1, 1)",
    "a transaction's effect stands though": f"UPDATE ended SET state = 'failed' WHERE op = {A_BOOKING}",
    "a transaction's effect is that of another": "UPDATE effects SET attempt = 1 WHERE op = 'books_again/site/0'",
    "a row was committed without the run": "INSERT INTO effects VALUES ('calls/s:tx/1', 'ordered', NULL, 1)",
    "a run was committed without the row": "UPDATE ended SET op = 'calls/s:tx/1' WHERE op = 'calls/site/0'",
    "a run submitted by a transaction is missing": "DELETE FROM ended WHERE op GLOB 'calls/child/*'",
    "a run was submitted by a transaction that": "DELETE FROM ended WHERE kind = 'books_and_submits'",
    "a call outside was never made": "DELETE FROM calls WHERE op = 'calls/site/0'",
    "a call outside came under several": "UPDATE calls SET key = attempt WHERE op = 'calls_again/site/0'",
    "a call outside came from a run that": "INSERT INTO calls VALUES ('calls/x/0', 'key', 'run', 1, 1)",
    "at-most-once work happened more": """
        INSERT INTO calls SELECT * FROM calls WHERE op = 'calls_once/site/0'""",
    "a run started before it was due": "UPDATE ended SET started_us = due_us - 1 WHERE op = 'calls/site/0'",
    "a run's attempts are not those": "UPDATE ended SET attempts = 2 WHERE op = 'calls/site/0'",
    "a run that ended changed again": "INSERT INTO wrong VALUES ('it did')",
}


async def test_each_broken_promise_is_found(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.submit(SOUND)
        await site.finish()
        assert site.violations() == []
        assert len(SPOILT) == len(checker.RULES)
        for (promise, change), rule in zip(SPOILT.items(), checker.RULES, strict=True):
            assert rule.startswith(promise)
            site.trail.rows.execute("BEGIN")
            assert site.trail.rows.execute(change).rowcount >= 1, change
            assert any(found.startswith(rule) for found in site.violations()), rule
            site.trail.rows.execute("ROLLBACK")
        assert site.violations() == []


LEFT = {
    "a run is not finished": """
        INSERT INTO lineshaft_run (id, state, lane, due_us, order_us, first_id)
        VALUES ('stray', 'ready', 1, 0, 0, 'stray')""",
    "a worker is still registered": """
        INSERT INTO lineshaft_worker (host, pid, boot_id, started_us, expires_boot_us, queues, tasks, terms)
        VALUES ('here', 1, '', 0, 0, '[]', '[]', '{}')""",
    "a slot is still held": "INSERT INTO lineshaft_slot VALUES ('limit', 1, 1)",
    "progress of no run": "INSERT INTO lineshaft_progress VALUES ('stray', '{}')",
    "a payload of no run": "INSERT INTO lineshaft_payload VALUES ('stray', 'args', '{}')",
    "an attempt of no run": "INSERT INTO lineshaft_attempt VALUES ('stray', 1, 1, 1, 0, 0, 0, 0, NULL)",
    "a key that nobody ever lets go": "INSERT INTO lineshaft_key VALUES ('t', 'n', 'k', 'stray', '', 0, NULL)",
}


@pytest.mark.parametrize("rule", LEFT)
async def test_what_is_left_over_is_found(tmp_path: Path, rule: str) -> None:
    assert LEFT.keys() == checker.LEFT_OVER.keys() - {"the file is not sound"}
    async with Site(tmp_path) as site:
        assert site.execute(LEFT[rule]) == 1
        assert [found.partition(":")[0] for found in site.violations()] == [rule]


async def test_an_end_that_changes_is_found(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.submit({"calls": 1})
        await site.finish()
        assert site.execute("UPDATE lineshaft_run_history SET state = 'cancelled'") == 1
        site.gather()
        [found] = site.violations()
        assert found.startswith("a run that ended changed again")
