"""What passengers are owed: every band, threshold and amount, and the one function that applies them.

Money is in integer cents and passengers are estimated in integer arithmetic, so that two computations of
the same flights agree to the cent on every machine. `assess` is pure: the same flight, the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from examples.flights.data import Flight


class Tier(NamedTuple):
    """From this delay on arrival, in minutes, each passenger is owed this many cents."""

    delay_from: int
    cents: int


class Band(NamedTuple):
    """Distances up to and including `miles_max` (`None`: without end); tiers by rising delay.

    A cancelled flight is paid like the longest delay.
    """

    name: str
    miles_max: int | None
    tiers: Sequence[Tier]


BANDS: Final = (
    Band("short haul", 932, (Tier(180, 25_000),)),
    Band("medium haul", 2_175, (Tier(180, 40_000),)),
    Band("long haul", None, (Tier(180, 30_000), Tier(240, 60_000))),
)
"""By rising distance: 1,500 km, 3,500 km, and beyond, where less than four hours is paid half."""

LOAD_PERCENT: Final = 83
"""Share of the seats that is taken to be occupied; the average of US airlines in 2013."""
SEATS_DEFAULT: Final = 149
"""Seats of a plane that the registry does not know; the most frequent number among those it does."""
SEATS_MIN: Final = 20
"""The registry gives some airliners the seats of a light aircraft; fewer than these are not believed."""


class Outcome(StrEnum):
    """What becomes of a flight's claim; each flight has exactly one."""

    NOT_DUE = "not due"
    """It arrived before the first threshold of its band."""
    COMPENSATED = "compensated"
    """It arrived so late that its passengers are owed money."""
    CANCELLED = "cancelled"
    """It never departed; its passengers are owed money."""
    UNDETERMINED = "undetermined"
    """It departed, but the data do not say how late it arrived; nothing is paid before a clerk decides."""


class Assessment(NamedTuple):
    """The outcome, the amount for all passengers together, and why, in a sentence for a clerk."""

    outcome: Outcome
    cents: int
    reason: str


class Contradiction(ValueError):
    """The record of a flight contradicts itself, so that no outcome would be right."""


def assess(flight: Flight) -> Assessment:
    """What the passengers of this flight are owed. Raises `Contradiction` where the record cannot be true."""
    _refuse_contradiction(flight)
    band = band_of(flight.distance)
    if flight.dep_time is None:
        cents, terms = _amount(flight, band, band.tiers[-1])
        return Assessment(Outcome.CANCELLED, cents, f"never departed: {terms}")
    if flight.arr_time is None:
        return Assessment(
            Outcome.UNDETERMINED,
            0,
            f"left {flight.origin} at {_hhmm(flight.dep_time)}, no arrival recorded at {flight.dest}: "
            "diverted, or its record was lost",
        )
    if flight.arr_delay is None:
        return Assessment(
            Outcome.UNDETERMINED,
            0,
            f"arrived at {_hhmm(flight.arr_time)}, no delay recorded: diverted on the way to {flight.dest}",
        )
    tier = tier_of(band, flight.arr_delay)
    if tier is None:
        due_from = band.tiers[0].delay_from
        return Assessment(
            Outcome.NOT_DUE, 0, f"arrival delay {flight.arr_delay} min, paid from {due_from} min"
        )
    cents, terms = _amount(flight, band, tier)
    return Assessment(Outcome.COMPENSATED, cents, f"arrived {flight.arr_delay} min late: {terms}")


def band_of(miles: int) -> Band:
    """The band that a distance falls into."""
    return next(band for band in BANDS if band.miles_max is None or miles <= band.miles_max)


def tier_of(band: Band, delay: int) -> Tier | None:
    """The highest tier that a delay in minutes reaches, or `None` below the first."""
    return next((tier for tier in reversed(band.tiers) if delay >= tier.delay_from), None)


def seats_of(flight: Flight) -> int:
    """Seats of the plane: the registry's where it knows the plane and its number can be true."""
    return SEATS_DEFAULT if flight.seats is None or flight.seats < SEATS_MIN else flight.seats


def passengers_of(flight: Flight) -> int:
    """Passengers taken to have been on board, or to have booked a flight that was cancelled."""
    return seats_of(flight) * LOAD_PERCENT // 100


def dollars(cents: int) -> str:
    """An amount for people, such as `1,234.50`; exact at any size."""
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole:,}.{rest:02}"


def _amount(flight: Flight, band: Band, tier: Tier) -> tuple[int, str]:
    passengers = passengers_of(flight)
    seats = f"{seats_of(flight)} seats" + ("" if seats_of(flight) == flight.seats else ", assumed")
    terms = f"{band.name}, {dollars(tier.cents)} USD for each of {passengers} passengers ({seats})"
    return passengers * tier.cents, terms


def _refuse_contradiction(flight: Flight) -> None:
    later = (flight.dep_delay, flight.arr_time, flight.arr_delay)
    if flight.dep_time is None and later != (None, None, None):
        raise Contradiction(f"{flight.key} has no departure, but a departure delay or an arrival.")
    if flight.dep_time is not None and flight.dep_delay is None:
        raise Contradiction(f"{flight.key} departed at {_hhmm(flight.dep_time)}, but has no departure delay.")
    if flight.arr_time is None and flight.arr_delay is not None:
        raise Contradiction(f"{flight.key} has an arrival delay of {flight.arr_delay} min, but no arrival.")


def _hhmm(clock: int) -> str:
    return f"{clock // 100:02}:{clock % 100:02}"
