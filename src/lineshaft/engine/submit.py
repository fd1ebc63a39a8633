"""Submitting: validate in the caller, deduplicate by key, insert in the caller's transaction or our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from lineshaft.core import bounds
from lineshaft.core.clock import Clock
from lineshaft.core.codec import digest
from lineshaft.core.duration import Duration, seconds
from lineshaft.core.errors import InvalidArguments, InvalidSetting
from lineshaft.core.ident import Chance
from lineshaft.engine.declare import Declaration, check_name, check_priority
from lineshaft.engine.fairness import place_in_lane_us
from lineshaft.engine.registry import DEFAULT_TENANT
from lineshaft.store.values import Lane, NewRun, SubmissionKey


class Options(NamedTuple):
    """What one submission says besides the arguments. `key` and `tenant` may be derived from them."""

    key: str | Callable[..., str] | None = None
    key_retention: Duration | None = None
    retry_failed: bool = False
    tenant: str | Callable[..., str] | None = None
    priority: int | None = None
    delay: Duration | None = None
    due: datetime | None = None


def prepare(
    task: Declaration,
    calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]],
    options: Options,
    clock: Clock,
    chance: Chance,
) -> list[NewRun]:
    """The runs that a submission inserts. Raises before anything is written if anything does not fit."""
    what = f"Submitting to task {task.name!r}"
    now_us = clock.now_us()
    due_us = _due_us(task, options, now_us)
    priority = task.priority if options.priority is None else options.priority
    check_priority(priority, what)
    order_us = place_in_lane_us(due_us, priority)
    codec = task.arguments
    tenant_of = _tenants(task, options, what)
    key_of = None if options.key is None else _keys(task, options.key, options, what)
    lanes: dict[str, Lane] = {}
    runs = []
    for run_id, (args, kwargs) in zip(chance.run_ids(now_us, len(calls)), calls, strict=True):
        values = codec.bind(args, kwargs)
        payload = codec.encode(values)
        tenant = tenant_of(values)
        lane = lanes.get(tenant)
        if lane is None:
            lane = lanes[tenant] = Lane(task.queue, task.name, task.version, tenant)
        key = None if key_of is None else key_of(values, payload)
        runs.append(NewRun(run_id, lane, payload, now_us, due_us, order_us, priority, key))
    return runs


def _due_us(task: Declaration, options: Options, now_us: int) -> int:
    what = f"Submitting to task {task.name!r}"
    if options.due is not None:
        if options.delay is not None:
            raise InvalidSetting(f"{what}: both delay and due are given.", hint="Give one of them.")
        if not isinstance(options.due, datetime) or options.due.tzinfo is None:
            raise InvalidSetting(
                f"{what}: due is {options.due!r}; it must be a datetime with a time zone.",
                hint="For example datetime.now(UTC) + timedelta(hours=1).",
            )
        due_us = round(options.due.timestamp() * 1_000_000)
        if due_us > now_us + bounds.DELAY_S_MAX * 1_000_000:
            raise InvalidSetting(f"{what}: due is {options.due}, more than ten years ahead.")
        return max(due_us, now_us)
    if options.delay is None:
        return now_us
    return now_us + round(seconds(options.delay, f"{what}: delay", at_most_s=bounds.DELAY_S_MAX) * 1_000_000)


def _tenants(task: Declaration, options: Options, what: str) -> Callable[[Mapping[str, Any]], str]:
    """How the tenant of each run is found."""
    given: Any = task.tenant if options.tenant is None else options.tenant
    if given is None:
        return lambda _: DEFAULT_TENANT
    if given == "required" and options.tenant is None:
        raise InvalidArguments(
            f"Task {task.name!r} needs a tenant with each submission.", hint="Say submit(…, tenant=…)."
        )
    what = f"{what}: the tenant"

    def tenant(values: Mapping[str, Any]) -> str:
        found = _derived(task, "tenant", given, values) if callable(given) else given
        check_name(found, what)
        return str(found)

    return tenant


def _keys(
    task: Declaration, given: Any, options: Options, what: str
) -> Callable[[Mapping[str, Any], bytes], SubmissionKey]:
    """How the key of each run is found."""
    retention_s = task.key_retention_s
    if options.key_retention is not None:
        retention_s = seconds(options.key_retention, f"{what}: key_retention")
    retention_us = int(retention_s * 1_000_000)
    what = f"{what}: the key"

    def key(values: Mapping[str, Any], payload: bytes) -> SubmissionKey:
        found = _derived(task, "key", given, values) if callable(given) else given
        check_name(found, what)
        return SubmissionKey(found, digest(payload).hex(), retention_us, options.retry_failed)

    return key


def _derived(task: Declaration, what: str, derive: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """Call a function of the arguments, given by position as the task takes them."""
    try:
        return derive(*values.values())
    except Exception as error:
        raise InvalidArguments(
            f"The {what} of a submission to task {task.name!r} cannot be derived from its arguments:"
            f" {type(error).__name__}: {error}"[:500],
            hint=f"Look at the function given as {what}=.",
        ) from error
