"""What may be declared of a task or queue: how it is retried, and how much of it runs at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lineshaft.core import bounds
from lineshaft.core.duration import Duration, seconds
from lineshaft.core.errors import InvalidSetting

Per = Literal["tenant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When an attempt that raised is tried again, and after how long.

    The pause before attempt n+1 is drawn evenly from zero to `initial` × `factor`^(n−1), at most `maximum`:
    exponential backoff with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015). `attempts` counts the first one. Exceptions are retried when they are of a class in `on` and
    of none in `never`. A run whose worker died is executed again whatever stands here.
    """

    attempts: int = 3
    initial: Duration = 1.0
    factor: float = 2.0
    maximum: Duration = 300.0
    on: tuple[type[BaseException], ...] = (Exception,)
    never: tuple[type[BaseException], ...] = ()
    initial_s: float = field(init=False)
    maximum_s: float = field(init=False)

    def __post_init__(self) -> None:
        whole = isinstance(self.attempts, int) and not isinstance(self.attempts, bool)
        if not whole or not 1 <= self.attempts <= bounds.ATTEMPTS_MAX:
            raise InvalidSetting(
                f"Retry attempts is {self.attempts!r}; it must lie between 1 and {bounds.ATTEMPTS_MAX}."
            )
        if not isinstance(self.factor, int | float) or not 1 <= self.factor <= 100:
            raise InvalidSetting(f"Retry factor is {self.factor!r}; it must lie between 1 and 100.")
        for name in ("on", "never"):
            kinds = getattr(self, name)
            if isinstance(kinds, type):
                object.__setattr__(self, name, (kinds,))
            elif not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
                raise InvalidSetting(f"Retry {name} holds {kinds!r}; it must hold exception classes.")
        object.__setattr__(self, "initial_s", seconds(self.initial, "Retry initial"))
        object.__setattr__(self, "maximum_s", seconds(self.maximum, "Retry maximum"))

    def applies_to(self, error_classes: frozenset[str]) -> bool:
        """Whether an exception is retried; `error_classes` names its class and all its bases.

        Names, because the exception may have been raised in another process.
        """
        if error_classes.intersection(map(class_name, self.never)):
            return False
        return not error_classes.isdisjoint(map(class_name, self.on))

    def pause_s(self, attempt: int, fraction: float) -> float:
        """Seconds between attempt number `attempt` and the next; `fraction` is drawn from [0, 1)."""
        # The exponent is bounded so that a thousand attempts do not overflow a float.
        ceiling_s = min(self.maximum_s, self.initial_s * self.factor ** min(attempt - 1, 64))
        return fraction * ceiling_s


def class_name(kind: type[BaseException]) -> str:
    """The qualified name under which an exception class is compared across processes."""
    return f"{kind.__module__}.{kind.__qualname__}"


def class_names(error: BaseException) -> frozenset[str]:
    """The names of an exception's class and all its bases."""
    return frozenset(class_name(kind) for kind in type(error).__mro__ if issubclass(kind, BaseException))


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` attempts at once: in all, or for each tenant."""

    count: int
    per: Per | None = None

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise InvalidSetting(f"Limit is {self.count!r}; it must be a whole number of at least 1.")
        _check_per("Limit", self.per)


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` starts in `per_seconds` in the long run: in all, or for each tenant.

    Kept by the generic cell rate algorithm (ITU-T I.371): a burst of `count` after a quiet time, then an
    even flow; so a window of `per_seconds` that begins with a burst may see up to twice `count` less one.
    """

    count: int
    per_seconds: float = 1.0
    per: Per | None = None

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise InvalidSetting(f"Rate is {self.count!r}; it must be a whole number of at least 1.")
        if not 0 < self.per_seconds <= 31 * 86_400:
            raise InvalidSetting(
                f"Rate per_seconds is {self.per_seconds!r}; it must be above 0, at most 31 days."
            )
        _check_per("Rate", self.per)


def _check_per(what: str, per: object) -> None:
    if per not in (None, "tenant"):
        raise InvalidSetting(f'{what} per is {per!r}; it must be "tenant" or left out.')
