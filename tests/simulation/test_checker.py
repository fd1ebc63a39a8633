"""The checker knows nothing of the engine, and each of its laws can be broken."""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import checker
from tests.simulation.checker import Case, Run
from tests.simulation.script import play
from tests.simulation.world import simulation

SEEDS = range(40)
Doctor = Callable[[Case], Any]


def test_the_checker_imports_only_the_standard_library() -> None:
    tree = ast.parse(Path(checker.__file__).read_text("utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names


@cache
def case_of(seed: int) -> Case:
    with simulation(seed, play) as record:
        return checker.read(record.events, record.file, clocks_agree=record.profile.clocks_agree)


def anew(case: Case) -> Case:
    """A case of its own, whose parts may be changed; `Case` sorts them when it is made."""
    parts = copy.deepcopy(
        (case.events, case.runs, case.unfinished, case.ledger, case.orders, case.attempts, case.clocks_agree)
    )
    return Case(*parts)


def one(found: Iterator[Any]) -> Any:
    """The first that there is; a doctor that finds no patient raises."""
    return next(found)


def runs(case: Case, **wanted: Any) -> Iterator[Run]:
    return (
        run
        for run in case.runs.values()
        if all(getattr(run, name) == value for name, value in wanted.items())
    )


def events(case: Case, kind: str, **wanted: Any) -> Iterator[dict[str, Any]]:
    return (
        event
        for event in case.events
        if event["kind"] == kind and all(event.get(name) == value for name, value in wanted.items())
    )


def claimed_twice(case: Case) -> None:
    claim = one(event for event in case.events if event["kind"] == "claim" and event["runs"])
    case.events.append({**claim, "at_s": 1e6})


def robbed(case: Case) -> None:
    claim = one(events(case, "claim"))
    later = copy.deepcopy(claim)
    later["runs"] = [[row[0], row[1] + 100, *row[2:]] for row in claim["runs"]]
    later["registered"] = [claim["worker"]]
    at = case.events.index(claim)
    case.events[at + 1 : at + 1] = [later]


def swept(case: Case) -> None:
    register = one(events(case, "register"))
    register["lease_s"] = 60.0
    at = case.events.index(register)
    case.events[at + 1 : at + 1] = [
        {"kind": "rescue", "at_s": register["at_s"], "dead": [register["worker"]]}
    ]


def key_shared(case: Case) -> None:
    run = one(run for run in runs(case) if run.key and run.task != "forgetful")
    case.runs["other"] = Run(
        **{**vars(run), "id": "019b0000-0000-7000-8000-000000000000", "first_id": "other"}
    )


def begins_before_due(case: Case) -> None:
    assert case.clocks_agree
    one(visit for visit in events(case, "body begins") if "run" in visit)["wall_us"] = 0


def rates(case: Case) -> None:
    assert case.clocks_agree
    claim = one(events(case, "claim"))
    claim["runs"] = [["x", 1, "rated", "acme", 0]] * 9


def cancelled_begins(case: Case) -> None:
    visit = one(
        visit
        for visit in events(case, "body begins")
        if "run" in visit and case.runs[visit["run"]].state == "succeeded"
    )
    case.runs[visit["run"]].state = "cancelled"
    case.events.insert(0, {"kind": "cancel done", "at_s": 0.0, "run": visit["run"], "state": "cancelled"})
    claim = one(claim for claim in events(case, "claim") if visit["run"] in [row[0] for row in claim["runs"]])
    case.events.append({**claim, "at_s": 1e6})


def charged_for_nothing(case: Case) -> None:
    run = one(runs(case, attempts=1))
    case.events[:] = [
        event
        for event in case.events
        if event["kind"] != "body begins" or (run.id != event.get("run") and run.work not in event["works"])
    ]


def accepted_in_part(case: Case) -> None:
    order = one(
        order for order in events(case, "submit asked") if len(order["works"]) > 1 and "key" not in order
    )
    del case.runs[one(runs(case, work=order["works"][0])).id]


def lost(case: Case) -> None:
    del case.runs[one(events(case, "submit done"))["runs"][0][0]]


def other_key(case: Case) -> None:
    asked = one(order for order in events(case, "submit asked") if "key" in order)
    done = one(events(case, "submit done", operation=asked["operation"]))
    case.runs[done["runs"][0][0]].key = "of somebody else"


def row_without_runs(case: Case) -> None:
    order = one(order for order in events(case, "submit asked", via="_in_transaction") if "key" not in order)
    case.orders[order["operation"]] = 1 - case.orders[order["operation"]]


def ended_otherwise(case: Case) -> None:
    sample = [event for event in events(case, "sample") if event["ended"]][-1]
    case.events.append({**sample, "ended": [(row[0], "failed", *row[2:]) for row in sample["ended"]]})


def followed_twice(case: Case) -> None:
    run = one(run for run in runs(case) if run.work >= checker.FOLLOWERS)
    case.runs["other"] = Run(**{**vars(run), "id": "other", "first_id": "other"})


BROKEN: dict[str, Doctor] = {
    "everything_comes_to_rest": lambda case: case.unfinished.append("a run"),
    "nothing_unexpected_is_raised": lambda case: case.events.append(
        {"kind": "unexpected", "at_s": 0.0, "text": "KeyError"}
    ),
    "what_was_accepted_is_there": lost,
    "what_was_submitted_once_exists_once": accepted_in_part,
    "what_is_submitted_in_a_transaction_commits_with_it": row_without_runs,
    "a_key_stands_for_one_piece_of_work": key_shared,
    "no_key_is_held_twice_at_once": lambda case: one(events(case, "sample"))["doubled"].append(("plain", 2)),
    "a_key_with_other_work_is_refused": other_key,
    "transactional_effects_happen_once": lambda case: case.ledger.append(case.ledger[0]),
    "follow_ups_commit_with_their_runs": followed_twice,
    "results_are_what_the_body_returned": lambda case: vars(one(runs(case, state="succeeded"))).update(
        result=-1
    ),
    "idempotency_keys_are_those_of_the_lineage": lambda case: one(
        visit for visit in events(case, "body begins") if "run" in visit
    ).update(key="another"),
    "attempts_are_charged_for_bodies": charged_for_nothing,
    "nobody_is_charged_for_a_neighbour": lambda case: vars(one(runs(case, crashes=0))).update(crashes=1),
    "at_most_once_is_at_most_once": lambda case: case.events.append(
        one(visit for visit in events(case, "body begins", task="once"))
    ),
    "fences_rise": claimed_twice,
    "a_holder_is_not_robbed": robbed,
    "the_living_are_not_swept": swept,
    "what_has_ended_stays_so": ended_otherwise,
    "everybody_hears_the_truth": lambda case: one(events(case, "heard", how="succeeded")).update(value=-1),
    "what_was_cancelled_does_not_begin": cancelled_begins,
    "nothing_starts_early": begins_before_due,
    "limits_hold": lambda case: one(events(case, "body begins", task="limited")).update(running=3),
    "rates_hold": rates,
}


def test_every_law_is_tried() -> None:
    assert [law.__name__ for law in checker.LAWS] == list(BROKEN)


def test_a_key_that_was_given_away_too_early_is_noticed() -> None:
    for seed in SEEDS:
        case = anew(case_of(seed))
        run = next((run for run in runs(case, task="forgetful") if case.clocks_agree), None)
        if run is not None:
            run.key = "key"
            other = Run(**{**vars(run), "first_id": "other", "id": f"{run.id}-other"})
            case.runs[other.id] = other
            given = {"kind": "submit done", "at_s": 0.0, "operation": -1, "runs": [[other.id, True]]}
            case.events.append(given)
            assert any("too early" in text for text in checker.a_key_stands_for_one_piece_of_work(anew(case)))
            return
    raise AssertionError("no seed had a key that is forgotten")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("law", checker.LAWS, ids=lambda law: law.__name__)
def test_a_law_that_is_broken_is_noticed(law: Callable[[Case], Iterator[str]]) -> None:
    for seed in SEEDS:
        case = anew(case_of(seed))
        assert not list(law(case))
        try:
            BROKEN[law.__name__](case)
        except (StopIteration, AssertionError, IndexError):
            continue  # nothing in this seed to break it with
        assert list(law(anew(case)))
        return
    raise AssertionError("no seed had anything to break this law with")
