"""The harness of `make bench-peers` works, shown with Lineshaft alone: the peers are not installed for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measurement import Results
from benchmarks.peers import benches
from benchmarks.peers.benches import Task, measure_drain, measure_kill
from benchmarks.peers.catalogue import SUBJECTS
from benchmarks.peers.remote import ClientFailed
from benchmarks.peers.rounds import Plan, Run
from benchmarks.peers.stage import Place, Stage
from benchmarks.peers.subject import Sizes

LINESHAFT = SUBJECTS[0]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "environments", tmp_path / "work")


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "IDLE_S", 0.1)
    monkeypatch.setattr(benches, "CALLS_S_MAX", 0.5)
    monkeypatch.setattr(benches, "IMPORTS", 1)


def values(results: Results, bench: str) -> dict[str, list[float | None]]:
    return {found.metric: found.values for found in results if found.bench == bench}


def test_every_bench_measures_lineshaft(place: Place) -> None:
    subject = replace(LINESHAFT, sizes=Sizes(drain=2_000, window=500, kill=3_000))
    said: list[str] = []
    run = Run(Plan([subject], rounds=1, backlog=1_500), place, said.append)
    for number, bench, one in run.plan.steps():
        run.step(number, bench, one)
    assert not run.failures
    assert len(said) == 5
    drain = values(run.results, "drain")
    assert (drain["lost"], drain["doubled"], drain["unfinished"]) == ([0], [0], [0])
    kill = values(run.results, "kill")
    assert (kill["lost"], kill["unfinished"]) == ([0], [0])
    backlog = run.results.get("backlog", subject.name, subject.config, "ratio")
    assert backlog is not None
    assert (backlog.settings["few"], backlog.settings["many"]) == (500, 1_500)
    measured = [
        found for found in run.results if found.metric not in {"lost", "doubled", "unfinished", "cpu"}
    ]
    assert {found.bench for found in measured} == {
        "import", "submit", "latency", "idle", "drain", "backlog", "kill",
    }  # fmt: skip
    assert all(value is not None and value > 0 for found in measured for value in found.values)
    assert all(found.versions["lineshaft"] for found in measured if found.bench != "import")
    assert not list(place.work.glob("stage-*"))


def lossy(place: Place, monkeypatch: pytest.MonkeyPatch, fewer: int) -> Task:
    """A measurement in which some runs are never executed."""
    submit = benches.RemoteClient.submit_many
    monkeypatch.setattr(
        benches.RemoteClient,
        "submit_many",
        lambda self, task, first, count: submit(self, task, first, max(1, count - fewer)),
    )
    monkeypatch.setattr(benches.watch, "__kwdefaults__", {**benches.watch.__kwdefaults__, "silence_s": 5.0})
    return Task(place, LINESHAFT, Sizes(drain=200, window=20, kill=20), backlog=0)


def test_runs_that_are_lost_are_counted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one.metric: one.value for one in measure_drain(lossy(place, monkeypatch, fewer=3))}
    assert found["lost"] == 3


def test_runs_that_ran_twice_are_counted(place: Place) -> None:
    with Stage(place, LINESHAFT) as stage:
        client = stage.client()
        client.submit_many("noop", 0, 30)
        client.submit_many("noop", 0, 7)
        with stage.workers() as workers:
            seen = benches.watch(stage.marks, 30, workers)
            benches.left_unfinished(client)
        assert (seen.done, stage.marks.doubled(30)) == (30, 7)


def test_what_fails_leaves_a_hole_in_its_round(place: Place) -> None:
    broken = replace(LINESHAFT, config="broken", app="no_such_app")
    run = Run(Plan([LINESHAFT], rounds=1), place, lambda _: None)
    run.step(0, "drain", broken)
    assert "no_such_app" in run.failures[0]
    run.step(1, "import", broken)
    [found] = run.results
    assert found.values[0] is None
    assert found.values[1] is not None


def test_a_system_that_is_not_installed_is_named(place: Place) -> None:
    celery = next(subject for subject in SUBJECTS if subject.name == "celery")
    with pytest.raises(FileNotFoundError, match="make bench-peers"):
        list(measure_kill(Task(place, celery, celery.sizes, backlog=0)))


def test_an_error_of_the_client_is_raised_here(place: Place) -> None:
    with Stage(place, LINESHAFT) as stage, pytest.raises(ClientFailed, match="KeyError: 'no-such-task'"):
        stage.client().submit_many("no-such-task", 0, 1)
