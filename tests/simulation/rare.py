"""Rare paths, counted in the histories of a campaign: what was never reached was never tested."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from tests.simulation.checker import Case, Event

Path = Callable[[Case], int]

_paths: dict[str, Path] = {}


def rare(name: str) -> Callable[[Path], Path]:
    def add(path: Path) -> Path:
        _paths[name] = path
        return path

    return add


def reached(case: Case) -> Counter[str]:
    """How often one simulation came through each of them."""
    return Counter({name: path(case) for name, path in _paths.items()})


def names() -> list[str]:
    return list(_paths)


def _faults(case: Case, fault: str, **fields: Any) -> int:
    return sum(
        event["fault"] == fault and all(event.get(key) == value for key, value in fields.items())
        for event in case.of["fault"]
    )


def _outcomes(case: Case) -> Iterator[tuple[Event, list[Any]]]:
    for kind in ("settle", "release"):
        for event in case.of[kind]:
            for row in event["runs"]:
                yield event, row


# Fences and leases


@rare("a settlement met a lost fence")
def _(case: Case) -> int:
    return sum(not row[4] for event, row in _outcomes(case) if event["kind"] == "settle")


@rare("a transaction met a lost fence and was rolled back")
def _(case: Case) -> int:
    return sum(not row[4] for event, row in _outcomes(case) if event["kind"] == "release")


@rare("a worker that was stalled past its lease had its outcome refused")
def _(case: Case) -> int:
    stalled = {(event["name"], event["at_s"]) for event in case.of["stalled"]}
    return sum(
        not row[4] and any(name == event["process"] and at_s < event["at_s"] for name, at_s in stalled)
        for event, row in _outcomes(case)
    )


@rare("a worker lost its lease and went on as a new incarnation")
def _(case: Case) -> int:
    incarnations: dict[str, set[int]] = defaultdict(set)
    for event in case.of["register"]:
        incarnations[event["process"]].add(event["worker"])
    return sum(len(numbers) - 1 for numbers in incarnations.values())


@rare("a heartbeat found its worker swept")
def _(case: Case) -> int:
    return sum(not event["held"] for event in case.of["beat"])


# Death and suspicion


@rare("a process died between two steps that it was counted to")
def _(case: Case) -> int:
    return sum(event["midway"] for event in case.of["died"])


@rare("the sweep returned suspects")
def _(case: Case) -> int:
    return sum(event["suspects"] > 0 for event in case.of["rescue"])


@rare("a group of suspects was halved")
def _(case: Case) -> int:
    return sum(
        max(Counter((row[0], row[2]) for row in event["held"] if row[2] is not None).values(), default=0) > 1
        for event in case.of["died"]
    )


@rare("a run was charged for killing its worker alone")
def _(case: Case) -> int:
    return sum(run.crashes > 0 for run in case.runs.values())


@rare("a run was given up for killing workers")
def _(case: Case) -> int:
    return sum(run.failure is not None and run.crashes > 3 for run in case.runs.values())


@rare("a process died with a transaction open")
def _(case: Case) -> int:
    died = {event["name"]: event["at_s"] for event in case.of["died"]}
    return sum(
        visit["visit"] not in case.ends
        and visit["task"] in ("ledger", "ledger_async")
        and visit["process"] in died
        for visit in case.of["body begins"]
    )


@rare("at-most-once work ended with an unknown outcome")
def _(case: Case) -> int:
    return sum(run.state == "outcome_unknown" for run in case.runs.values())


# Commits of which nobody knew


@rare("a commit of the engine was made and reported as failed")
def _(case: Case) -> int:
    return _faults(case, "commit ambiguous", lent=False)


@rare("a commit of a transaction of user code was made and reported as failed")
def _(case: Case) -> int:
    return _faults(case, "commit ambiguous", lent=True)


@rare("a commit failed and was rolled back")
def _(case: Case) -> int:
    return _faults(case, "commit fails")


@rare("the reply to a submission was lost")
def _(case: Case) -> int:
    return _faults(case, "reply lost", call="submit")


@rare("the reply to a settlement was lost")
def _(case: Case) -> int:
    return _faults(case, "reply lost", call="settle")


@rare("the reply to a claim was lost")
def _(case: Case) -> int:
    return _faults(case, "reply lost", call="claim")


@rare("the reply to the start mark of at-most-once work was lost")
def _(case: Case) -> int:
    return _faults(case, "reply lost", call="mark_started")


@rare("a submission that nobody knew of was there")
def _(case: Case) -> int:
    asked = {event["operation"]: event for event in case.of["submit asked"]}
    return sum(
        not failed["certain"] and any(case.runs_for(work) for work in asked[failed["operation"]]["works"])
        for failed in case.of["submit failed"]
    )


# Batches, transactions, places


@rare("a batch was split")
def _(case: Case) -> int:
    sizes: dict[int, list[int]] = defaultdict(list)
    for visit in case.of["body begins"]:
        if visit["task"] in ("batch", "batch_ledger"):
            for work in visit["works"]:
                sizes[work].append(len(visit["works"]))
    return sum(any(later < before for before, later in pairwise(each)) for each in sizes.values())


@rare("one part of a group was rolled back and its neighbours committed")
def _(case: Case) -> int:
    raised = {visit["at_s"]: visit for visit in case.of["body begins"] if visit["task"] == "ledger"}
    bad = [visit for visit in raised.values() if case.ends.get(visit["visit"]) == "raised"]
    good = {event["process"]: event["at_s"] for event in case.of["release"]}
    return sum(0 <= good.get(visit["process"], -1) - visit["at_s"] < 1.0 for visit in bad)


@rare("a transaction held the writer for too long and was cut off")
def _(case: Case) -> int:
    failed = sum(event["error"] == "TransactionTooLong" for event in case.of["submit failed"])
    kinds = [run.failure["type"] for run in case.runs.values() if run.failure]
    return failed + sum(kind.endswith("TransactionTooLong") for kind in kinds)


@rare("a run submitted by a transactional body committed with it")
def _(case: Case) -> int:
    return sum(work >= 1_000_000 for work in case.by_work)


@rare("an attempt took longer than its timeout")
def _(case: Case) -> int:
    failures = [text for *_, text in case.attempts if text] + [str(run.failure) for run in case.runs.values()]
    return sum("took longer than the timeout" in text for text in failures)


@rare("a result of the wrong type was refused")
def _(case: Case) -> int:
    return sum(
        bool(run.failure) and run.failure["class"] == "result" for run in case.runs.values() if run.failure
    )


@rare("a task was parked, since no worker knew it")
def _(case: Case) -> int:
    return len(case.of["park"])


@rare("a worker that was told to stop handed runs back")
def _(case: Case) -> int:
    drained = {event["process"]: event["at_s"] for event in case.of["drains"]}
    return sum(
        row[3] == "ready" and event["at_s"] >= drained.get(event["process"], 1e9)
        for event, row in _outcomes(case)
    )


# Keys and operators


@rare("a key gave the run that held it")
def _(case: Case) -> int:
    return sum(not created for event in case.of["submit done"] for _, created in event["runs"])


@rare("a key with other arguments was refused")
def _(case: Case) -> int:
    return sum(event["error"] == "KeyReused" for event in case.of["submit failed"])


@rare("a failed holder of a key was replaced by a submission")
def _(case: Case) -> int:
    by_operator = {event["new"] for event in case.of["retry done"]}
    return sum(run.retry_of is not None and run.id not in by_operator for run in case.runs.values())


@rare("a key was given away after its retention")
def _(case: Case) -> int:
    firsts: dict[str, set[str]] = defaultdict(set)
    for run in case.runs.values():
        if run.task == "forgetful" and run.key:
            firsts[run.key].add(run.first_id)
    return sum(len(each) - 1 for each in firsts.values())


@rare("an operator retried a run")
def _(case: Case) -> int:
    return len(case.of["retry done"])


@rare("a run was cancelled before it was claimed")
def _(case: Case) -> int:
    return sum(event["state"] == "cancelled" for event in case.of["cancel done"])


@rare("a run was cancelled while it executed")
def _(case: Case) -> int:
    asked = {event["run"] for event in case.of["cancel done"] if event["state"] == "running"}
    return sum(run.state == "cancelled" and run.id in asked for run in case.runs.values())


@rare("a run that was to be cancelled ended first")
def _(case: Case) -> int:
    asked = {event["run"] for event in case.of["cancel done"] if event["state"] == "running"}
    return sum(run.state == "succeeded" and run.id in asked for run in case.runs.values())


# Limits and wake-ups


@rare("a limit was used to the full")
def _(case: Case) -> int:
    return sum(visit.get("running") == 2 and visit["task"] == "limited" for visit in case.of["body begins"])


@rare("a rate held back a run")
def _(case: Case) -> int:
    starts = [claim["at_s"] for claim in case.of["claim"] for row in claim["runs"] if row[2] == "rated"]
    return sum(later - before > 0.6 for before, later in pairwise(starts[2:]))


@rare("a wake-up was lost and healed by looking")
def _(case: Case) -> int:
    healed, lost = 0, dict[str, float]()
    for event in case.events:
        if event["kind"] == "fault" and event["fault"] == "poke lost" and event["news"] & 1:
            lost.setdefault(event["to"], event["at_s"])
        elif event["kind"] == "claim" and event["process"] in lost:
            healed += 0.01 < event["at_s"] - lost.pop(event["process"]) < 0.5
    return healed


@rare("a wake-up came late")
def _(case: Case) -> int:
    return _faults(case, "poke late")
