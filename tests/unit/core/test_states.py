"""The table of transitions: complete, closed, and what DESIGN's words for the states say."""

from __future__ import annotations

from itertools import product

import pytest

from lineshaft.core.errors import InvalidTransition
from lineshaft.core.states import FINAL, TRANSITIONS, FailureClass, State, check

UNFINISHED = set(State) - FINAL


def reachable(start: State) -> set[State]:
    seen: set[State] = set()
    ahead = [start]
    while ahead:
        for after in TRANSITIONS[ahead.pop()] - seen:
            seen.add(after)
            ahead.append(after)
    return seen


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(after <= set(State) for after in TRANSITIONS.values())


def test_final_states_are_final() -> None:
    assert {state for state, after in TRANSITIONS.items() if not after} == FINAL
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.OUTCOME_UNKNOWN} == FINAL


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_no_state_is_a_trap(state: State) -> None:
    assert reachable(state) >= FINAL


@pytest.mark.parametrize("state", [State.SCHEDULED, State.READY])
def test_every_state_is_reached_from_a_submission(state: State) -> None:
    assert reachable(state) | {state} == set(State)


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_whatever_has_not_finished_can_be_cancelled(state: State) -> None:
    assert State.CANCELLED in TRANSITIONS[state]


def test_only_what_is_ready_is_claimed() -> None:
    assert {state for state, after in TRANSITIONS.items() if State.RUNNING in after} == {State.READY}


def test_only_what_ran_succeeds_or_has_an_unknown_outcome() -> None:
    for end in (State.SUCCEEDED, State.OUTCOME_UNKNOWN):
        assert {state for state, after in TRANSITIONS.items() if end in after} == {State.RUNNING}


def test_a_run_that_runs_may_be_retried_handed_back_or_parked() -> None:
    assert {State.SCHEDULED, State.READY, State.PARKED} <= TRANSITIONS[State.RUNNING]


def test_nothing_follows_itself() -> None:
    assert not [state for state, after in TRANSITIONS.items() if state in after]


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_check_goes_by_the_table(before: State, after: State) -> None:
    if after in TRANSITIONS[before]:
        check("run-1", before, after)
    else:
        with pytest.raises(InvalidTransition, match=f"run-1 is {before} and cannot become {after}"):
            check("run-1", before, after)


def test_states_and_classes_are_their_names() -> None:
    assert f"{State.OUTCOME_UNKNOWN}" == "outcome_unknown"
    assert State("ready") is State.READY
    assert f"{FailureClass.CRASH}" == "crash"
