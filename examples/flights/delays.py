"""The heavy arithmetic of a day's report: how late a carrier typically was, and how sure that is.

The median arrival delay of each carrier comes with a 95 % confidence interval found by resampling
(percentile bootstrap, Efron 1979). Chance is seeded with the day: the report of a day is the same in
every process and after every restart.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date
from statistics import median
from typing import Final

from pydantic import BaseModel, ConfigDict

from examples.flights.data import Flight

RESAMPLES: Final = 200
"""How often the flights of a carrier are drawn anew."""
TAIL_PERCENT: Final = 2.5
"""Share of the resampled medians left out at each end."""


class CarrierDelay(BaseModel):
    """Median arrival delay of a carrier on one day, in minutes, between the ends of its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    carrier: str
    flights: int
    median: float
    low: float
    high: float


class DayReport(BaseModel):
    """One day: all scheduled flights, and for each carrier those whose arrival delay is known."""

    model_config = ConfigDict(frozen=True)

    day: date
    flights: int
    carriers: list[CarrierDelay]


def arrival_delays(flights: Sequence[Flight]) -> dict[str, list[int]]:
    """Known arrival delays by carrier, in minutes."""
    delays: dict[str, list[int]] = {}
    for flight in flights:
        if flight.arr_delay is not None:
            delays.setdefault(flight.carrier, []).append(flight.arr_delay)
    return delays


def report_of(day: date, flights: int, delays: dict[str, list[int]]) -> DayReport:
    """Compute the report of a day; some tens of milliseconds of pure computation."""
    chance = random.Random(day.toordinal())
    carriers = [carrier_delay(carrier, minutes, chance) for carrier, minutes in sorted(delays.items())]
    return DayReport(day=day, flights=flights, carriers=carriers)


def carrier_delay(carrier: str, minutes: Sequence[int], chance: random.Random) -> CarrierDelay:
    """Median and confidence interval of at least one delay."""
    medians = sorted(median(chance.choices(minutes, k=len(minutes))) for _ in range(RESAMPLES))
    left_out = int(RESAMPLES * TAIL_PERCENT / 100)
    return CarrierDelay(
        carrier=carrier,
        flights=len(minutes),
        median=median(minutes),
        low=medians[left_out],
        high=medians[-1 - left_out],
    )
