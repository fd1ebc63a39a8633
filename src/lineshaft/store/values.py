"""The values that cross the store's ports: plain, immutable, the same for every store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from lineshaft.core.states import FailureClass, State


class News(IntFlag):
    """What a commit may mean to others."""

    WORK = 1
    """Runs became ready, or a slot came free."""
    FINISHED = 2
    """Runs reached their end, or reported progress."""
    CANCEL = 4
    """Somebody wants a running run cancelled."""
    LISTENERS = 8
    """Another process listens from now on."""
    ALL = 15


class Lane(NamedTuple):
    """A line of runs that are alike to the claim: all may run now, or none of them."""

    queue: str
    task: str
    version: str
    tenant: str

    @property
    def id(self) -> int:
        """63 bits of a digest of the four names: known without asking the store."""
        return _lane_id(self)


@lru_cache(maxsize=65_536)
def _lane_id(lane: Lane) -> int:
    digest = blake2b("\0".join(lane).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class SubmissionKey(NamedTuple):
    """What makes a submission idempotent: the same key gives the same run."""

    text: str
    digest: str
    """Of the arguments, to notice a key that comes again with others."""
    retention_us: int
    """How long after the run's finish the key is kept."""
    retry_failed: bool = False
    """Whether a holder that failed is replaced by a new run of its lineage."""


class NewRun(NamedTuple):
    """A run to be inserted. `due_us` in the future makes it scheduled, otherwise it is ready."""

    id: str
    lane: Lane
    args: bytes
    submitted_us: int
    due_us: int
    order_us: int
    """Its place in the lane: due time less priority times the ageing step."""
    priority: int = 0
    key: SubmissionKey | None = None
    first_id: str | None = None
    """The first run of its lineage of retries; itself where None."""
    retry_of: str | None = None


class Accepted(NamedTuple):
    """What became of a submission: its own id, or that of the run which holds its key."""

    id: str
    created: bool


@dataclass(frozen=True, slots=True)
class Slots:
    """A concurrency limit as the store keeps it: at most `count` leased under `key`."""

    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Pace:
    """A rate as the store keeps it: `count` starts in `period_us`, a row under `key`."""

    key: str
    count: int
    period_us: int


Gate = Slots | Pace


class OpenLane(NamedTuple):
    """A lane with ready runs, as a claim finds it."""

    lane: Lane
    head_order_us: int


class LaneShare(NamedTuple):
    """How much one claim may take from a lane."""

    lane: Lane
    rows_max: int
    order_us_max: int
    """Runs later in the lane than this are left for now, since other lanes hold earlier ones."""
    gates: tuple[Gate, ...] = ()


Plan = Callable[[Sequence[OpenLane]], Sequence[LaneShare]]


class ClaimRequest(NamedTuple):
    """One worker's wish for runs. `plan` must be pure: the store calls it inside its transaction."""

    worker: int
    now_us: int
    plan: Plan
    after_lane: int
    """The claim looks at lanes with larger ids first, and starts over at the smallest."""
    idle: bool
    """The worker has nothing in flight, so it may take a group of suspects."""


class Claimed(NamedTuple):
    """A run that this worker now holds, under this fence."""

    id: str
    lane: Lane
    fence: int
    attempts: int
    """Attempts charged before this one."""
    crashes: int
    args: bytes
    due_us: int
    first_id: str
    key: str | None
    cancel_requested: bool
    priority: int


class Held(NamedTuple):
    """A run that a worker holds, as far as it takes to give it back."""

    id: str
    fence: int
    lane: Lane
    due_us: int
    priority: int


class ClaimReply(NamedTuple):
    """What a claim found."""

    runs: Sequence[Claimed]
    last_lane: int
    more: bool
    """Whether claiming again at once may find more."""
    next_due_us: int | None
    """When the next scheduled run, or the next start that a rate allows, is due."""
    suspects_wait: bool
    """A group of suspects waits for a worker with nothing in flight."""


class Failure(NamedTuple):
    """Why an attempt did not succeed."""

    kind: FailureClass
    type: str
    message: str
    traceback: str = ""

    def as_json(self) -> dict[str, str]:
        return {"class": self.kind, "type": self.type, "message": self.message, "traceback": self.traceback}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Failure:
        return cls(
            FailureClass(fields["class"]), fields["type"], fields["message"], fields.get("traceback", "")
        )


class Outcome(NamedTuple):
    """How an attempt ended, to be written under its fence by the settlement alone."""

    run_id: str
    fence: int
    worker: int
    state: State
    """A final state; or scheduled for a retry; or ready or parked for a run handed back."""
    started_us: int
    finished_us: int
    wall_us: int = 0
    cpu_us: int = 0
    charged: bool = True
    """Whether this counts as an attempt; a hand-back does not."""
    result: bytes | None = None
    failure: Failure | None = None
    due_us: int = 0
    order_us: int = 0
    slots: tuple[str, ...] = ()
    """Keys of the concurrency limits of which this run held a slot."""
    keyed: bool = True
    """False where the run is known to have no submission key, so that none is looked for."""
    reported: bool = True
    """False where no attempt at the run can have reported progress, so that none is looked for."""


class RunView(NamedTuple):
    """A run as it stands, finished or not: what `status`, `runs show` and waiting callers read."""

    id: str
    lane: Lane
    state: State
    attempts: int
    crashes: int
    submitted_us: int
    due_us: int
    priority: int
    key: str | None = None
    first_id: str = ""
    retry_of: str | None = None
    worker: int | None = None
    fence: int = 0
    cancel_requested: bool = False
    suspect: int | None = None
    args: bytes = b""
    result: bytes | None = None
    failure: Failure | None = None
    claimed_us: int | None = None
    """When the worker that holds it took it; of finished runs only `started_us` is kept."""
    started_us: int | None = None
    finished_us: int | None = None
    wall_us: int | None = None
    cpu_us: int | None = None


class AttemptView(NamedTuple):
    """One attempt that did not end its run."""

    number: int
    fence: int
    started_us: int
    finished_us: int
    wall_us: int
    cpu_us: int
    failure: Failure | None


class RunFilter(NamedTuple):
    """Which runs a listing shows; newest submissions first."""

    states: frozenset[State] = frozenset()
    tasks: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    before_id: str | None = None
    rows_max: int = 100


@dataclass(frozen=True, slots=True)
class LimitTerms:
    """A limit as a worker's code declares it: for one version of a task, or, without one, for a queue."""

    queue: str
    task: str | None
    version: str | None
    count: int
    period_us: int | None
    """Of a rate; None for a concurrency limit."""
    per_tenant: bool

    @property
    def scope(self) -> str:
        """What its keys in the store begin with."""
        return f"queue:{self.queue}" if self.task is None else f"task:{self.task}"

    def applies_to(self, lane: Lane) -> bool:
        if self.task is None:
            return lane.queue == self.queue
        return (lane.task, lane.version) == (self.task, self.version)

    def gate(self, tenant: str) -> Gate:
        """The gate that the store keeps for it, for runs of this tenant."""
        key = f"{self.scope}/tenant:{tenant}" if self.per_tenant else self.scope
        return (
            Slots(key, self.count)
            if self.period_us is None
            else Pace(f"{key}/rate", self.count, self.period_us)
        )


class Terms(NamedTuple):
    """What a worker's code declares of its tasks and queues, so that anybody can say what holds a run back."""

    limits: tuple[LimitTerms, ...] = ()
    attempts: tuple[tuple[str, str, int], ...] = ()
    """Name and version of each task that is retried, and how many attempts it has."""

    def as_json(self) -> dict[str, Any]:
        return {
            "limits": [
                [limit.queue, limit.task, limit.version, limit.count, limit.period_us, limit.per_tenant]
                for limit in self.limits
            ],
            "attempts": self.attempts,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Terms:
        return cls(
            tuple(LimitTerms(*limit) for limit in fields["limits"]),
            tuple((task, version, attempts) for task, version, attempts in fields["attempts"]),
        )


class WorkerView(NamedTuple):
    """A worker as the registry knows it. An incarnation is one start of one process."""

    id: int
    host: str
    pid: int
    started_us: int
    alive: bool
    queues: tuple[str, ...]
    tasks: tuple[tuple[str, str], ...]
    """Name and version of each task it can execute."""
    terms: Terms = Terms()
    held: int = 0


class NewWorker(NamedTuple):
    """What a worker says of itself when it registers."""

    host: str
    pid: int
    started_us: int
    queues: tuple[str, ...]
    """Empty for all queues."""
    tasks: tuple[tuple[str, str], ...]
    lease_us: int
    terms: Terms = Terms()


class SlotHolder(NamedTuple):
    """Slots of one concurrency limit held by one live worker."""

    key: str
    worker: int
    held: int


class QueueView(NamedTuple):
    """A queue at a glance."""

    queue: str
    counts: dict[State, int]
    oldest_ready_us: int | None
    """When the longest-waiting ready run became due."""
    failed: int = 0
    """Runs in history that failed."""

    @property
    def unfinished(self) -> int:
        return sum(self.counts.values())


class Rescued(NamedTuple):
    """What a sweep over dead workers did."""

    returned: int = 0
    suspects: int = 0
    failed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    workers: tuple[int, ...] = ()


class Pruned(NamedTuple):
    """Rows that one step of pruning deleted."""

    runs: int = 0
    keys: int = 0

    @property
    def total(self) -> int:
        return self.runs + self.keys


class StoreFacts(NamedTuple):
    """What `doctor` and `queues` need to know of a store."""

    address: str
    engine: str
    schema: str
    bytes: int
    unfinished: int
    finished: int
    details: Mapping[str, str]
