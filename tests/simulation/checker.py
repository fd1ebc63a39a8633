"""Judges one simulation by its history and its file. Imports nothing of Lineshaft, nor of the rest of the simulation.

Each law is a function that yields what breaks it. What the tasks promise is written down here a second time, on
purpose: a law that read it from the engine would agree with the engine's mistakes.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

Event = dict[str, Any]

ATTEMPTS = {"once": 1, "forgetful": 1, "rare": 1}
"""Attempts that a task allows, where that is not 3."""
TRANSACTIONAL = ("ledger", "ledger_async", "batch_ledger")
BATCHES = ("batch", "batch_ledger")
LIMITS = {"limited": 2, "tenant_limited": 1}
RATE, RATE_US = 3, 2_000_000
FORGETS_AFTER_US = 1_000_000
CRASHES_FORGIVEN = 3
REFUSED = "lineshaft.core.errors.StoreError"
START_US = 1_767_225_600_000_000
"""What clocks that are right show when a simulation begins."""
FOLLOWERS = 1_000_000
FINAL = ("succeeded", "failed", "cancelled", "outcome_unknown")


@dataclass
class Run:
    """A row of what has ended."""

    id: str
    state: str
    task: str
    tenant: str
    work: int
    attempts: int
    crashes: int
    fence: int
    worker: int | None
    key: str | None
    first_id: str
    retry_of: str | None
    due_us: int
    finished_us: int
    result: Any
    failure: dict[str, Any] | None

    @property
    def submitted_us(self) -> int:
        """The first 48 bits of a version 7 UUID are milliseconds."""
        return int(self.id.replace("-", "")[:12], 16) * 1_000


@dataclass
class Case:
    """What is judged."""

    events: list[Event]
    runs: dict[str, Run]
    unfinished: list[str]
    ledger: list[tuple[str | None, int, int]]
    orders: Counter[int]
    attempts: list[tuple[str, int, str | None]]
    clocks_agree: bool
    of: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    by_work: dict[int, list[Run]] = field(default_factory=dict)
    visits: dict[int, Event] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for event in self.events:
            self.of[event["kind"]].append(event)
        for run in self.runs.values():
            self.by_work.setdefault(run.work, []).append(run)
        self.visits = {event["visit"]: event for event in self.of["body begins"]}
        self.ends = {event["visit"]: event["how"] for event in self.of["body ends"]}

    def runs_for(self, work: int) -> list[Run]:
        return self.by_work.get(work, [])

    def visits_of(self, run: Run) -> list[Event]:
        """The bodies that executed a run; those of a batch name only its work."""
        return [
            visit
            for visit in self.of["body begins"]
            if (visit["run"] == run.id if "run" in visit else run.work in visit["works"])
        ]


_RUNS = """
SELECT run.id, run.state, lane.task, lane.tenant, run.args, run.attempts, run.crashes, run.fence, run.worker, run.key,
       run.first_id, run.retry_of, run.due_us, run.finished_us, run.result, run.failure
FROM lineshaft_run_history AS run JOIN lineshaft_lane AS lane ON lane.id = run.lane
"""


def read(events: list[Event], file: Path, *, clocks_agree: bool) -> Case:
    """The case of one simulation."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    runs = {}
    for run_id, state, task, tenant, args, *rest, result, failure in connection.execute(_RUNS):
        [work] = json.loads(args).values()
        run = Run(run_id, state, task, tenant, work, *rest, _value(result), _value(failure))
        runs[run_id] = run
    case = Case(
        events=events,
        runs=runs,
        unfinished=[row[0] for row in connection.execute("SELECT id FROM lineshaft_run")],
        ledger=connection.execute("SELECT run_id, work, visit FROM ledger").fetchall(),
        orders=Counter(row[0] for row in connection.execute("SELECT operation FROM orders")),
        attempts=connection.execute("SELECT run_id, fence, failure FROM lineshaft_attempt").fetchall(),
        clocks_agree=clocks_agree,
    )
    connection.close()
    return case


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def violations(case: Case) -> list[str]:
    """Every law that does not hold, with what breaks it."""
    return [f"{law.__name__}: {text}" for law in LAWS for text in law(case)]


# Rest


def everything_comes_to_rest(case: Case) -> Iterator[str]:
    """Once nothing goes wrong any more, every run ends and everybody who waits hears of it."""
    if case.unfinished:
        yield f"runs have not ended: {case.unfinished}"
    for rest in case.of["rest"]:
        if rest["waiting"]:
            yield f"still wait: {rest['waiting']}"


def nothing_unexpected_is_raised(case: Case) -> Iterator[str]:
    for event in case.of["unexpected"]:
        yield event["text"]


# Acceptance


def what_was_accepted_is_there(case: Case) -> Iterator[str]:
    """Acknowledged: it exists, as it was asked for. Refused for certain: nothing of it does."""
    asked = {event["operation"]: event for event in case.of["submit asked"]}
    for done in case.of["submit done"]:
        order = asked[done["operation"]]
        for (run_id, created), work in zip(done["runs"], order["works"], strict=True):
            run = case.runs.get(run_id)
            if run is None:
                if run_id not in case.unfinished:
                    yield f"run {run_id} of operation {done['operation']} was accepted and is not there"
            elif (run.task, run.tenant, run.work) != (order["task"], order["tenant"], work):
                yield f"run {run_id} has the work {run.work}, not {work} as operation {done['operation']} asked"
            elif created and order.get("key") != run.key:
                yield f"run {run_id} lost its key"


def what_was_submitted_once_exists_once(case: Case) -> Iterator[str]:
    """Known or not: a submission is one run, with those that retry it, and one of many is all of them or none."""
    done = {event["operation"] for event in case.of["submit done"]}
    certain = {event["operation"] for event in case.of["submit failed"] if event["certain"]}
    for order in case.of["submit asked"]:
        if "key" in order:
            continue
        lineages = [len({run.first_id for run in case.runs_for(work)}) for work in order["works"]]
        unfinished = bool(case.unfinished)
        if max(lineages) > 1:
            yield f"operation {order['operation']} exists {max(lineages)} times"
        if len(set(lineages)) > 1 and not unfinished:
            yield f"operation {order['operation']} was accepted in part: {lineages}"
        if order["operation"] in certain and max(lineages):
            yield f"operation {order['operation']} was refused and is there"
        if order["operation"] in done and not min(lineages) and not unfinished:
            yield f"operation {order['operation']} was accepted and is not there"


def what_is_submitted_in_a_transaction_commits_with_it(case: Case) -> Iterator[str]:
    """The client's row is there exactly where the runs are."""
    for order in case.of["submit asked"]:
        operation = order["operation"]
        if order["via"] == "_plainly" or "key" in order or case.unfinished:
            continue
        runs = sum(bool(case.runs_for(work)) for work in order["works"])
        if bool(runs) != bool(case.orders[operation]):
            yield f"operation {operation} has {runs} runs and {case.orders[operation]} rows"


# Keys


def a_key_stands_for_one_piece_of_work(case: Case) -> Iterator[str]:
    """The same key, while it is kept, gives the same run, or one of its lineage."""
    holders: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in case.runs.values():
        if run.key is not None:
            holders[run.task, run.tenant, run.key].append(run)
    for name, runs in holders.items():
        firsts = {run.first_id for run in runs}
        if name[0] == "forgetful":
            yield from _forgotten_in_time(case, name, runs)
        elif len(firsts) > 1:
            yield f"{name} is held by {sorted(firsts)}"
        yield from _one_after_another(case, name, runs)


def _forgotten_in_time(case: Case, name: object, runs: list[Run]) -> Iterator[str]:
    """A key that is forgotten after a while may stand for other work then, and not before."""
    if not case.clocks_agree:
        return
    # It is looked at when the submission is written, which may be long after it was wished for.
    written_us = {
        run_id: START_US + done["at_s"] * 1_000_000
        for done in case.of["submit done"]
        for run_id, created in done["runs"]
        if created
    }
    lineages: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        lineages[run.first_id].append(run)
    ordered = sorted(lineages.values(), key=lambda lineage: min(run.id for run in lineage))
    for before, after in pairwise(ordered):
        kept_until_us = max(run.finished_us for run in before) + FORGETS_AFTER_US
        given_us = min(written_us.get(run.id, kept_until_us) for run in after)
        if given_us + 1_000 < kept_until_us:
            yield f"{name} was given away {kept_until_us - given_us:.0f} us too early"


def _one_after_another(case: Case, name: object, runs: list[Run]) -> Iterator[str]:
    """A run that retries another was submitted when that had ended."""
    for run in runs:
        old = case.runs.get(run.retry_of or "")
        if old is not None and case.clocks_agree and run.submitted_us + 1_000 < old.finished_us:
            yield f"{name}: {run.id} retries {old.id} before its end"
        if old is not None and old.state == "succeeded":
            yield f"{name}: {run.id} retries {old.id}, which has succeeded"


def no_key_is_held_twice_at_once(case: Case) -> Iterator[str]:
    for sample in case.of["sample"]:
        for row in sample["doubled"]:
            yield f"at {sample['at_s']}: {row}"


def a_key_with_other_work_is_refused(case: Case) -> Iterator[str]:
    """Whoever was given a run by a key was given that for his own work."""
    asked = {event["operation"]: event for event in case.of["submit asked"]}
    for done in case.of["submit done"]:
        order = asked[done["operation"]]
        if "key" not in order:
            continue
        run = case.runs.get(done["runs"][0][0])
        if run is not None and run.key != order["key"]:
            yield f"operation {done['operation']} with {order['key']!r} was given run {run.id} with {run.key!r}"


# Effects


def transactional_effects_happen_once(case: Case) -> Iterator[str]:
    """One row for a run that succeeded, written by the body whose result it has; none for one that did not."""
    rows: dict[int, list[tuple[str | None, int]]] = defaultdict(list)
    for run_id, work, visit in case.ledger:
        rows[work].append((run_id, visit))
    for work, runs in case.by_work.items():
        if runs[0].task not in TRANSACTIONAL:
            continue
        won = [run for run in runs if run.state == "succeeded"]
        found = rows.pop(work, [])
        if len(found) != len(won):
            states = [run.state for run in runs]
            yield f"work {work} of {runs[0].task} has {len(found)} rows, and runs that are {states}"
        for run_id, visit in found:
            if won and visit not in {run.result for run in won}:
                yield f"the row of work {work} is of visit {visit}, its result of {[run.result for run in won]}"
            if won and run_id is not None and run_id not in {run.id for run in won}:
                yield f"the row of work {work} is of run {run_id}, which has not succeeded"
    if not case.unfinished:
        for work in rows:
            yield f"work {work} has a row and no run"


def follow_ups_commit_with_their_runs(case: Case) -> Iterator[str]:
    """What a body submitted exists at most once, and only if some run of its work succeeded."""
    for work, runs in case.by_work.items():
        if work < FOLLOWERS:
            continue
        won = [run for run in case.runs_for(work - FOLLOWERS) if run.state == "succeeded"]
        if len({run.first_id for run in runs}) != len(won):
            yield f"work {work} was submitted {len(runs)} times by {len(won)} runs that succeeded"


def results_are_what_the_body_returned(case: Case) -> Iterator[str]:
    for run in case.runs.values():
        if run.state != "succeeded":
            continue
        visit = case.visits.get(run.result)
        if visit is None or run.work not in visit["works"] or visit.get("run", run.id) != run.id:
            yield f"run {run.id} has the result of visit {run.result}, which was not one of its bodies"
        elif case.ends.get(run.result) != "returned":
            yield f"run {run.id} succeeded by visit {run.result}, which {case.ends.get(run.result, 'never ended')}"
        elif not _held(case, run, visit):
            yield f"run {run.id} has fence {run.fence}, which {visit['process']} never had"


def _held(case: Case, run: Run, visit: Event) -> bool:
    """Whether the process of a visit claimed the run under the fence of its end; some claims are not seen."""
    claims = [claim for claim in case.of["claim"] for row in claim["runs"] if row[:2] == [run.id, run.fence]]
    return not claims or any(claim["process"] == visit["process"] for claim in claims)


def idempotency_keys_are_those_of_the_lineage(case: Case) -> Iterator[str]:
    for visit in case.of["body begins"]:
        run = case.runs.get(visit.get("run", ""))
        if run is not None and visit["key"] != run.first_id:
            yield f"visit {visit['visit']} of run {run.id} had the key {visit['key']}, not {run.first_id}"


# Attempts, crashes, at most once


def attempts_are_charged_for_bodies(case: Case) -> Iterator[str]:
    """No more attempts than the policy allows, and none without a body that ended."""
    charged: Counter[str] = Counter(row[0] for row in case.attempts)
    # Where the store says that the same would happen again, the attempt ends before its body begins.
    refused = Counter(row[0] for row in case.attempts if row[2] and REFUSED in row[2])
    refused.update(run.id for run in case.runs.values() if run.failure and run.failure["type"] == REFUSED)
    for run in case.runs.values():
        if run.attempts > ATTEMPTS.get(run.task, 3):
            yield f"run {run.id} of {run.task} was charged {run.attempts} attempts"
        if charged[run.id] > run.attempts:
            yield f"run {run.id} has {charged[run.id]} attempts on record and {run.attempts} charged"
        visits = case.visits_of(run)
        if run.attempts - refused[run.id] > len(visits):
            yield f"run {run.id} was charged {run.attempts} attempts for {len(visits)} bodies"
        if run.state == "failed" and run.failure and run.failure["class"] == "error":
            ended = {case.ends.get(visit["visit"]) for visit in visits}
            if not ended & {"raised", "returned", "cancelled"}:
                yield f"run {run.id} failed with {run.failure['type']} and no body of it ended"


def nobody_is_charged_for_a_neighbour(case: Case) -> Iterator[str]:
    """A crash is charged only to a run that was all that its worker held when that died."""
    alone: Counter[str] = Counter()
    for death in case.of["died"]:
        held: dict[int, list[str]] = defaultdict(list)
        for worker, run_id, _ in death["held"]:
            held[worker].append(run_id)
        alone.update(runs[0] for runs in held.values() if len(runs) == 1)
    for run in case.runs.values():
        if run.crashes > alone[run.id]:
            yield f"run {run.id} was charged {run.crashes} crashes, and was alone at {alone[run.id]}"
        given_up = run.state == "failed" and run.failure and run.failure["class"] == "crash"
        if given_up and run.crashes <= CRASHES_FORGIVEN:
            yield f"run {run.id} was given up after {run.crashes} crashes"
        if run.crashes > CRASHES_FORGIVEN + 1:
            yield f"run {run.id} was executed again after {run.crashes} crashes"


def at_most_once_is_at_most_once(case: Case) -> Iterator[str]:
    for run in case.runs.values():
        visits = case.visits_of(run)
        if run.task != "once":
            if run.state == "outcome_unknown":
                yield f"run {run.id} of {run.task} has an unknown outcome"
            continue
        if len(visits) > 1:
            yield f"run {run.id} began {len(visits)} times"
        ended = visits and case.ends.get(visits[0]["visit"])
        if visits and not ended and run.state != "outcome_unknown":
            yield f"run {run.id} is {run.state}, though its body never ended"


# Leases, fences, finality


def fences_rise(case: Case) -> Iterator[str]:
    last: dict[str, int] = {}
    for claim in case.of["claim"]:
        for run_id, fence, *_ in claim["runs"]:
            if fence <= last.get(run_id, 0):
                yield f"run {run_id} was claimed under {fence} after {last[run_id]}"
            last[run_id] = fence
    for run in case.runs.values():
        if run.fence < last.get(run.id, 0):
            yield f"run {run.id} ended under {run.fence}, and was claimed under {last[run.id]}"


def a_holder_is_not_robbed(case: Case) -> Iterator[str]:
    """A run changes hands only when its holder gave it back, left, or was swept."""
    holders: dict[str, tuple[int, int]] = {}
    given: set[tuple[str, int]] = set()
    leaving: set[int] = set()
    for event in case.events:
        if event["kind"] in ("settle asked", "release asked"):
            given.update((row[0], row[1]) for row in event["runs"])
        elif event["kind"] == "unregister asked":
            leaving.add(event["worker"])
        elif event["kind"] == "claim":
            for run_id, fence, *_ in event["runs"]:
                before = holders.get(run_id)
                is_there = before is not None and before[1] in event["registered"]
                if before and is_there and (run_id, before[0]) not in given and before[1] not in leaving:
                    yield f"run {run_id} was taken from worker {before[1]}, which is there and holds it"
                holders[run_id] = (fence, event["worker"])


def the_living_are_not_swept(case: Case) -> Iterator[str]:
    """A sweep takes a worker only when its process is gone or its lease has run out."""
    good_until_s: dict[int, float] = {}
    gone: set[int] = set()
    for event in case.events:
        if event["kind"] in ("register", "beat") and event.get("held", True):
            good_until_s[event["worker"]] = event["at_s"] + event["lease_s"]
        elif event["kind"] == "died":
            gone.update(event["workers"])
        elif event["kind"] == "unregister asked":
            # Its number is let go of before its row is gone, where the reply is lost.
            gone.add(event["worker"])
        elif event["kind"] == "rescue":
            for worker in event["dead"]:
                # What was heard of a beat may be later than the beat.
                left_s = good_until_s.get(worker, 0.0) - event["at_s"]
                if worker not in gone and left_s > event.get("slack_s", 0.0) + 4.0:
                    yield f"worker {worker} was swept with {left_s:.1f} seconds of its lease left"


def what_has_ended_stays_so(case: Case) -> Iterator[str]:
    seen: dict[str, list[Any]] = {}
    for sample in case.of["sample"]:
        now = {row[0]: list(row[1:]) for row in sample["ended"]}
        for run_id, row in seen.items():
            if now.get(run_id) != row:
                yield f"run {run_id} was {row} and is {now.get(run_id)} at {sample['at_s']}"
        seen = now


def everybody_hears_the_truth(case: Case) -> Iterator[str]:
    """What waiting, cancelling and settling answered is what the file says in the end."""
    names = {"run-cancelled": "cancelled", "run-outcome-unknown": "outcome_unknown", "succeeded": "succeeded"}
    for heard in case.of["heard"]:
        run = case.runs.get(heard["run"])
        if run is None:
            yield f"run {heard['run']} ended {heard['how']}, and has no end"
        elif run.state != names.get(heard["how"], "failed") or heard.get("value") != run.result:
            yield f"run {run.id} is {run.state} {run.result}, and was heard to be {heard['how']} {heard.get('value')}"
    for settled in case.of["settle"]:
        for run_id, fence, _, state, kept, _ in settled["runs"]:
            run = case.runs.get(run_id)
            if kept and state in FINAL and (run is None or (run.state, run.fence) != (state, fence)):
                yield f"run {run_id} was settled as {state} under {fence}, and is {run}"


def what_was_cancelled_does_not_begin(case: Case) -> Iterator[str]:
    cancelled: set[str] = set()
    for event in case.events:
        if event["kind"] == "cancel done" and event["state"] in FINAL:
            run = case.runs.get(event["run"])
            if run is None or run.state != event["state"]:
                yield f"run {event['run']} was {event['state']}, and is {run and run.state}"
            if event["state"] == "cancelled":
                cancelled.add(event["run"])
        elif event["kind"] == "body begins" and event.get("run") in cancelled:
            # A stalled holder may still begin; its outcome is refused.
            run = case.runs[event["run"]]
            if any(row[:1] == [run.id] for row in _claims_after(case, event)):
                yield f"run {run.id} began at {event['at_s']}, after it was cancelled"


def _claims_after(case: Case, moment: Event) -> Iterator[list[Any]]:
    for claim in case.of["claim"]:
        if claim["at_s"] > moment["at_s"]:
            yield from claim["runs"]


# Time, limits, rates


def nothing_starts_early(case: Case) -> Iterator[str]:
    """By the wall clock of the process that executes it; where clocks differ, nobody can say what early is."""
    if not case.clocks_agree:
        return
    due_us: dict[tuple[str, str], int] = {}
    for event in case.events:
        if event["kind"] == "claim":
            due_us.update({(event["process"], row[0]): row[4] for row in event["runs"]})
        elif event["kind"] == "body begins" and "run" in event:
            early_us = due_us.get((event["process"], event["run"]), 0) - event["wall_us"]
            if early_us > 0:
                yield f"run {event['run']} began {early_us} us before it was due"
    asked = {event["operation"]: event for event in case.of["submit asked"]}
    for done in case.of["submit done"]:
        order = asked[done["operation"]]
        wanted_us = order["wall_us"] + order.get("delay", 0) * 1_000_000
        created = {run_id for run_id, is_new in done["runs"] if is_new}
        for visit in case.of["body begins"]:
            if visit.get("run") in created and visit["wall_us"] < wanted_us:
                yield f"run {visit['run']} began {wanted_us - visit['wall_us']} us before its delay was over"


def limits_hold(case: Case) -> Iterator[str]:
    for visit in case.of["body begins"]:
        if visit.get("running", 0) > LIMITS.get(visit["task"], 1_000):
            yield f"{visit['running']} runs of {visit['task']} at once, at {visit['at_s']}"


def rates_hold(case: Case) -> Iterator[str]:
    """The generic cell rate algorithm, played again over all claims that were seen.

    A claim counts by the time when it asked. The row of a rate may be pruned between then and when it is served, so
    only what comes too early by both is.
    """
    if not case.clocks_agree:
        return
    claims = [claim for claim in case.of["claim"] if any(row[2] == "rated" for row in claim["runs"])]
    asked = _too_early(claims, lambda claim: float(claim["now_us"]))
    served = _too_early(claims, lambda claim: START_US + claim["at_s"] * 1_000_000)
    for at_s in asked.keys() & served.keys():
        yield f"the rated runs of the claim at {at_s} started {min(asked[at_s], served[at_s]):.0f} us too early"


def _too_early(claims: list[Event], when_us: Callable[[Event], float]) -> dict[float, float]:
    """By how much each claim was ahead of its rate, if it was."""
    found: dict[float, float] = {}
    arrival_us = 0.0
    for claim in sorted(claims, key=when_us):
        count = sum(row[2] == "rated" for row in claim["runs"])
        arrival_us = max(arrival_us, when_us(claim)) + count * RATE_US / RATE
        if arrival_us - when_us(claim) > RATE_US + 10:
            found[claim["at_s"]] = arrival_us - when_us(claim) - RATE_US
    return found


LAWS: tuple[Callable[[Case], Iterator[str]], ...] = (
    everything_comes_to_rest,
    nothing_unexpected_is_raised,
    what_was_accepted_is_there,
    what_was_submitted_once_exists_once,
    what_is_submitted_in_a_transaction_commits_with_it,
    a_key_stands_for_one_piece_of_work,
    no_key_is_held_twice_at_once,
    a_key_with_other_work_is_refused,
    transactional_effects_happen_once,
    follow_ups_commit_with_their_runs,
    results_are_what_the_body_returned,
    idempotency_keys_are_those_of_the_lineage,
    attempts_are_charged_for_bodies,
    nobody_is_charged_for_a_neighbour,
    at_most_once_is_at_most_once,
    fences_rise,
    a_holder_is_not_robbed,
    the_living_are_not_swept,
    what_has_ended_stays_so,
    everybody_hears_the_truth,
    what_was_cancelled_does_not_begin,
    nothing_starts_early,
    limits_hold,
    rates_hold,
)
