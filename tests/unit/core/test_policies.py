"""What may be declared of a task: how it is retried, how much of it runs at once."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from lineshaft.core import bounds
from lineshaft.core.errors import InvalidSetting
from lineshaft.core.policies import Limit, Rate, Retry, class_name, class_names


class Refused(OSError):
    pass


class Busy(Refused):
    pass


# Retry


def test_the_pause_doubles_up_to_its_maximum() -> None:
    retry = Retry(attempts=9, initial="2s", factor=2, maximum="20s")
    ceilings = [retry.pause_s(attempt, 1.0) for attempt in range(1, 8)]
    assert ceilings == [2, 4, 8, 16, 20, 20, 20]


def test_jitter_is_full() -> None:
    retry = Retry(initial=8)
    assert [retry.pause_s(1, fraction) for fraction in (0.0, 0.25, 0.5)] == [0, 2, 4]


def test_a_constant_pause() -> None:
    retry = Retry(initial=3, factor=1)
    assert {retry.pause_s(attempt, 1.0) for attempt in range(1, 1_000)} == {3.0}


def test_the_last_of_a_thousand_attempts_does_not_overflow() -> None:
    retry = Retry(attempts=bounds.ATTEMPTS_MAX, factor=100)
    assert math.isfinite(retry.pause_s(bounds.ATTEMPTS_MAX, 0.999))


def test_a_maximum_below_the_initial_pause_counts() -> None:
    assert Retry(initial="1h", maximum="1m").pause_s(1, 1.0) == 60


@pytest.mark.parametrize("value", [90, 90.0, "90s", "1m 30s", timedelta(seconds=90)])
def test_pauses_are_durations(value: Any) -> None:
    assert (Retry(initial=value).initial_s, Retry(maximum=value).maximum_s) == (90, 90)


def test_any_exception_is_retried_unless_it_is_said_which() -> None:
    retry = Retry()
    assert retry.applies_to(class_names(ValueError()))
    assert retry.applies_to(class_names(Busy()))
    assert not retry.applies_to(class_names(KeyboardInterrupt()))
    assert not retry.applies_to(class_names(SystemExit()))


def test_subclasses_are_matched_and_never_wins() -> None:
    retry = Retry(on=(OSError,), never=(Busy,))
    assert retry.applies_to(class_names(Refused()))
    assert retry.applies_to(class_names(FileNotFoundError()))
    assert not retry.applies_to(class_names(Busy()))
    assert not retry.applies_to(class_names(ValueError()))


def test_classes_are_matched_by_name_since_they_may_come_from_another_process() -> None:
    raised_elsewhere = frozenset(
        {f"{__name__}.Busy", f"{__name__}.Refused", "builtins.OSError", "builtins.Exception"}
    )
    assert class_names(Busy()) - {"builtins.BaseException"} == raised_elsewhere
    assert Retry(on=(Refused,)).applies_to(raised_elsewhere)
    assert not Retry(never=(Refused,)).applies_to(raised_elsewhere)
    assert not Retry(on=(Refused,)).applies_to(frozenset({"elsewhere.Refused", "builtins.Exception"}))


def test_the_name_of_a_class_tells_where_it_is_from() -> None:
    class Inner(Exception):
        pass

    assert class_name(ValueError) == "builtins.ValueError"
    assert class_name(Inner).endswith("tells_where_it_is_from.<locals>.Inner")


def test_one_class_may_stand_alone() -> None:
    retry = Retry(on=OSError, never=Busy)  # type: ignore[arg-type]  # what users write
    assert (retry.on, retry.never) == ((OSError,), (Busy,))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attempts": 0}, "attempts is 0"),
        ({"attempts": -1}, "between 1 and"),
        ({"attempts": bounds.ATTEMPTS_MAX + 1}, str(bounds.ATTEMPTS_MAX)),
        ({"attempts": 1.5}, "attempts is 1.5"),
        ({"attempts": True}, "attempts is True"),
        ({"attempts": "3"}, "attempts is '3'"),
        ({"factor": 0.5}, "factor is 0.5"),
        ({"factor": 101}, "between 1 and 100"),
        ({"factor": math.nan}, "factor is nan"),
        ({"factor": "2"}, "factor is '2'"),
        ({"initial": -1}, "Retry initial"),
        ({"initial": "soon"}, "Retry initial is 'soon'"),
        ({"maximum": "-5s"}, "Retry maximum"),
        ({"maximum": math.nan}, "Retry maximum"),
        ({"on": ("OSError",)}, "Retry on"),
        ({"on": (OSError(),)}, "exception classes"),
        ({"never": (int,)}, "Retry never"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        Retry(**options)


def test_what_is_retried_where_nothing_is_said() -> None:
    retry = Retry()
    assert (retry.attempts, retry.initial_s, retry.factor, retry.maximum_s) == (3, 1, 2, 300)


@pytest.mark.parametrize("options", [{"factor": 1}, {"factor": 100}, {"attempts": 1}, {"initial": 0}])
def test_bounds_are_within(options: dict[str, Any]) -> None:
    assert getattr(Retry(**options), next(iter(options))) == next(iter(options.values()))


def test_a_policy_is_a_value() -> None:
    assert Retry(attempts=5) == Retry(attempts=5)
    with pytest.raises(AttributeError):
        Retry().attempts = 7  # type: ignore[misc]  # it is frozen


# Limits and rates


def test_limits_and_rates_hold_what_was_declared() -> None:
    assert (Limit(3).count, Limit(3).per, Limit(2, per="tenant").per) == (3, None, "tenant")
    rate = Rate(100, per_seconds=60, per="tenant")
    assert (rate.count, rate.per_seconds, rate.per) == (100, 60, "tenant")
    assert Rate(5).per_seconds == 1


@pytest.mark.parametrize("kind", [Limit, Rate])
@pytest.mark.parametrize("count", [0, -1, 1.5, True, "3", None])
def test_a_count_is_a_whole_number_of_at_least_one(kind: Any, count: Any) -> None:
    with pytest.raises(InvalidSetting, match="at least 1"):
        kind(count)


@pytest.mark.parametrize("kind", [Limit, Rate])
def test_per_is_tenant_or_nothing(kind: Any) -> None:
    with pytest.raises(InvalidSetting, match='must be "tenant"'):
        kind(1, per="user")


def test_the_longest_period_of_a_rate() -> None:
    assert Rate(1, per_seconds=31 * 86_400).per_seconds == 31 * 86_400


@pytest.mark.parametrize("per_seconds", [0, -1, math.nan, math.inf, 31 * 86_400 + 1])
def test_the_period_of_a_rate_is_bounded(per_seconds: float) -> None:
    with pytest.raises(InvalidSetting, match="per_seconds"):
        Rate(1, per_seconds=per_seconds)
