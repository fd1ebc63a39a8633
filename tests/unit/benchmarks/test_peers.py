from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.peers.catalogue import SUBJECTS
from benchmarks.peers.marks import Marks
from benchmarks.peers.rounds import Plan, named
from benchmarks.peers.stage import ROOT

PEERS = ROOT / "benchmarks" / "peers"
PAGE = (ROOT / "docs" / "reference" / "performance.md").read_text("utf-8")


def test_marks_are_shared_through_the_file(tmp_path: Path) -> None:
    ours, theirs = Marks(tmp_path / "marks", 10), Marks(tmp_path / "marks")
    for number in (0, 3, 3, 3):
        theirs.mark(number)
    assert ours.done(10) == 2
    assert ours.doubled(10) == 2
    assert ours.done(3) == 1
    ours.close()
    theirs.close()


def test_no_two_subjects_are_the_same() -> None:
    assert max(Counter(subject.title for subject in SUBJECTS).values()) == 1


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.title)
def test_a_subject_has_all_that_it_needs(subject) -> None:
    assert (PEERS / "apps" / f"{subject.app}.py").exists()
    if subject.environment != "lineshaft":
        lock = (PEERS / "requirements" / f"{subject.environment}.txt").read_text("utf-8")
        pins = re.findall(r"^[a-z0-9-]+==\S+", lock, re.MULTILINE)
        assert len(re.findall(r"^ +--hash=sha256:", lock, re.MULTILINE)) >= len(pins) > 0
    assert set(subject.redelivery) | set(subject.filling) <= set(subject.settings)


@pytest.mark.parametrize("name", sorted({subject.name for subject in SUBJECTS}))
def test_the_page_says_what_each_subject_promises(name: str) -> None:
    assert re.search(rf"^\| {name} on ", PAGE, re.MULTILINE | re.IGNORECASE)


def test_settings_are_replaced_within_and_not_beside() -> None:
    celery = next(subject for subject in SUBJECTS if subject.name == "celery")
    patient = celery.with_settings(celery.redelivery)["conf"]
    assert patient["task_acks_late"] is True
    assert patient["broker_transport_options"]["visibility_timeout"] == 10
    assert celery.settings["conf"]["broker_transport_options"]["visibility_timeout"] == 3_600


def test_every_round_measures_all_and_begins_with_another() -> None:
    steps = list(Plan(SUBJECTS, rounds=3, benches=["drain"]).steps())
    rounds = [[subject.title for number, _, subject in steps if number == one] for one in range(3)]
    assert sorted(rounds[0]) == sorted(rounds[1]) == sorted(rounds[2])
    assert len({titles[0] for titles in rounds}) == 3


def test_the_kill_test_is_done_once() -> None:
    steps = list(Plan(SUBJECTS[:1], rounds=3).steps())
    assert Counter(bench for _, bench, _ in steps) == {
        "import": 3, "latency": 3, "drain": 3, "backlog": 3, "kill": 1,
    }  # fmt: skip


def test_only_some_subjects_come_with_lineshaft() -> None:
    assert {subject.name for subject in named(SUBJECTS, ["huey"])} == {"lineshaft", "huey"}
    assert named(SUBJECTS, []) == list(SUBJECTS)
    with pytest.raises(ValueError, match="rq"):
        named(SUBJECTS, ["rq"])
