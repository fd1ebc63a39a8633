"""The rules of the flights example at every edge, its reading of rows, and its comparison with the ledger."""

from __future__ import annotations

import sys
from datetime import date
from importlib.util import find_spec
from typing import Any

import pytest

from examples.flights import data
from examples.flights.data import Flight, UnreadableRow, read_flights
from examples.flights.delays import arrival_delays, report_of
from examples.flights.rules import (
    BANDS,
    SEATS_DEFAULT,
    SEATS_MIN,
    Assessment,
    Contradiction,
    Outcome,
    assess,
    band_of,
    dollars,
    passengers_of,
    seats_of,
)

needs_data = pytest.mark.skipif(
    find_spec(data.PACKAGE) is None,
    reason=f"the package {data.PACKAGE}, which carries the flights, is not installed",
)

SAMPLE = """\
year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,\
origin,dest,air_time,distance,hour,minute,time_hour
2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z
2013,1,1,848,1835,853,1001,1950,851,MQ,3944,N942MQ,JFK,BWI,41,184,18,35,2013-01-01T23:00:00Z
2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,N18120,EWR,RDU,NA,416,16,30,2013-01-01T21:00:00Z
2013,1,1,1525,1530,-5,1934,1805,NA,MQ,4525,N719MQ,LGA,XNA,NA,1147,15,30,2013-01-01T20:00:00Z
2013,1,1,2016,1930,46,NA,2220,NA,EV,4204,N14168,EWR,OKC,NA,1325,19,30,2013-01-02T00:00:00Z
2013,7,27,NA,106,NA,NA,245,NA,US,1632,NA,EWR,LGA,NA,17,1,6,2013-07-27T05:00:00Z
"""
SEATS = {"N14228": 149, "N18120": 55, "N14168": 55}


def flight(**changes: Any) -> Flight:
    """A punctual flight of 1,000 miles with 100 seats, changed as asked."""
    values: dict[str, Any] = {
        "day": date(2013, 2, 3),
        "carrier": "UA",
        "number": 15,
        "origin": "EWR",
        "dest": "HNL",
        "distance": 1_000,
        "sched_dep_time": 900,
        "sched_arr_time": 1200,
        "dep_time": 900,
        "dep_delay": 0,
        "arr_time": 1200,
        "arr_delay": 0,
        "tailnum": "N1",
        "seats": 100,
    }
    return Flight.model_validate(values | changes)


NO_TIMES: dict[str, Any] = {"dep_time": None, "dep_delay": None, "arr_time": None, "arr_delay": None}


class TestBands:
    def test_rise_and_end_without_limit(self) -> None:
        limits = [band.miles_max for band in BANDS]
        assert limits[-1] is None
        finite = [limit for limit in limits if limit is not None]
        assert finite == sorted(set(finite))
        assert len(finite) == len(limits) - 1
        for band in BANDS:
            delays, cents = [tier.delay_from for tier in band.tiers], [tier.cents for tier in band.tiers]
            assert delays == sorted(set(delays))
            assert cents == sorted(set(cents))

    @pytest.mark.parametrize(
        ("miles", "name"),
        [
            (1, "short haul"),
            (932, "short haul"),
            (933, "medium haul"),
            (2_175, "medium haul"),
            (2_176, "long haul"),
            (4_983, "long haul"),
        ],
    )
    def test_edges(self, miles: int, name: str) -> None:
        assert band_of(miles).name == name


class TestDelay:
    @pytest.mark.parametrize(
        ("miles", "delay", "cents_each"),
        [
            (932, -86, 0),
            (932, 179, 0),
            (932, 180, 25_000),
            (932, 1_272, 25_000),
            (933, 179, 0),
            (933, 180, 40_000),
            (2_175, 240, 40_000),
            (2_176, 179, 0),
            (2_176, 180, 30_000),
            (2_176, 239, 30_000),
            (2_176, 240, 60_000),
        ],
    )
    def test_thresholds(self, miles: int, delay: int, cents_each: int) -> None:
        outcome, cents, reason = assess(flight(distance=miles, arr_delay=delay))
        assert cents == cents_each * 83
        assert outcome is (Outcome.COMPENSATED if cents_each else Outcome.NOT_DUE)
        assert f"{delay} min" in reason

    def test_a_late_departure_that_arrives_in_time_is_not_paid(self) -> None:
        assert assess(flight(dep_delay=400, arr_delay=179)).outcome is Outcome.NOT_DUE

    def test_reason_names_band_amount_and_passengers(self) -> None:
        assert assess(flight(arr_delay=200)) == Assessment(
            Outcome.COMPENSATED,
            3_320_000,
            "arrived 200 min late: medium haul, 400.00 USD for each of 83 passengers (100 seats)",
        )


class TestMissingTimes:
    @pytest.mark.parametrize(("miles", "cents_each"), [(932, 25_000), (933, 40_000), (2_176, 60_000)])
    def test_a_cancelled_flight_is_paid_like_the_longest_delay(self, miles: int, cents_each: int) -> None:
        outcome, cents, reason = assess(flight(distance=miles, **NO_TIMES))
        assert (outcome, cents) == (Outcome.CANCELLED, cents_each * 83)
        assert reason.startswith("never departed: ")

    def test_a_cancelled_flight_without_a_plane_is_paid_on_assumed_seats(self) -> None:
        outcome, cents, reason = assess(flight(tailnum=None, seats=None, **NO_TIMES))
        assert (outcome, cents) == (Outcome.CANCELLED, 40_000 * 123)
        assert reason.endswith("(149 seats, assumed)")

    def test_no_arrival_is_undetermined(self) -> None:
        assert assess(flight(arr_time=None, arr_delay=None)) == Assessment(
            Outcome.UNDETERMINED,
            0,
            "left EWR at 09:00, no arrival recorded at HNL: diverted, or its record was lost",
        )

    def test_an_arrival_without_delay_is_undetermined(self) -> None:
        assert assess(flight(arr_delay=None)) == Assessment(
            Outcome.UNDETERMINED, 0, "arrived at 12:00, no delay recorded: diverted on the way to HNL"
        )

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({**NO_TIMES, "arr_time": 1200}, "no departure"),
            ({**NO_TIMES, "arr_delay": 3}, "no departure"),
            ({**NO_TIMES, "dep_delay": 3}, "no departure"),
            ({"dep_delay": None}, "no departure delay"),
            ({"arr_time": None}, "but no arrival"),
        ],
    )
    def test_a_contradiction_is_refused_by_name(self, changes: dict[str, Any], what: str) -> None:
        with pytest.raises(Contradiction, match=what) as refused:
            assess(flight(**changes))
        assert str(refused.value).startswith("2013-02-03/UA/15/EWR ")


class TestPassengers:
    @pytest.mark.parametrize(
        ("known", "seats", "passengers"),
        [
            (None, SEATS_DEFAULT, 123),
            (SEATS_MIN - 1, SEATS_DEFAULT, 123),
            (SEATS_MIN, SEATS_MIN, 16),
            (55, 55, 45),
            (450, 450, 373),
        ],
    )
    def test_seats_and_load(self, known: int | None, seats: int, passengers: int) -> None:
        assert (seats_of(flight(seats=known)), passengers_of(flight(seats=known))) == (seats, passengers)

    @pytest.mark.parametrize(
        ("cents", "text"), [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (123_456_789_012, "1,234,567,890.12")]
    )
    def test_dollars(self, cents: int, text: str) -> None:
        assert dollars(cents) == text


class TestReading:
    def test_sample(self) -> None:
        read = list(read_flights(SAMPLE.splitlines(keepends=True), SEATS))
        assert [(f.key, assess(f).outcome.value, assess(f).cents) for f in read] == [
            ("2013-01-01/UA/1545/EWR", "not due", 0),
            ("2013-01-01/MQ/3944/JFK", "compensated", 3_075_000),
            ("2013-01-01/EV/4308/EWR", "cancelled", 1_125_000),
            ("2013-01-01/MQ/4525/LGA", "undetermined", 0),
            ("2013-01-01/EV/4204/EWR", "undetermined", 0),
            ("2013-07-27/US/1632/EWR", "cancelled", 3_075_000),
        ]
        assert read[-1].tailnum is None
        assert [f.seats for f in read] == [149, None, 55, None, 55, None]
        assert all(Flight.model_validate_json(f.model_dump_json()) == f for f in read)

    @pytest.mark.parametrize(
        ("old", "new", "complaint"),
        [
            (",1400,", ",far,", "Line 2 of the flights: distance is 'far'"),
            (",1400,", ",-1,", "Line 2 of the flights: distance is '-1'"),
            ("EWR,IAH", "EWR,NA", "Line 2 of the flights: dest is None"),
            (",517,", ",575,", "Line 2 of the flights: dep_time is '575': .*not a time of day"),
            ("2013,1,1,517", "2013,2,30,517", "Line 2 of the flights: day is out of range"),
            ("arr_delay", "lateness", "The flights have no column arr_delay"),
        ],
    )
    def test_an_unreadable_row_is_named(self, old: str, new: str, complaint: str) -> None:
        lines = SAMPLE.replace(old, new, 1).splitlines(keepends=True)
        with pytest.raises(UnreadableRow, match=complaint):
            list(read_flights(lines, SEATS))

    def test_a_row_cut_short_is_named(self) -> None:
        lines = [*SAMPLE.splitlines(keepends=True)[:3], "2013,1,1,517\n"]
        with pytest.raises(UnreadableRow, match="Line 4 of the flights"):
            list(read_flights(lines, SEATS))

    def test_an_absent_package_is_named_with_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(data, "PACKAGE", "no_such_package_of_flights")
        with pytest.raises(data.DataNotInstalled, match="pip install --no-deps no_such_package_of_flights"):
            data.data_file("flights.csv.zip")


def test_report_of_a_day_is_the_same_each_time() -> None:
    flights = [flight(number=n, arr_delay=n % 37 - 10) for n in range(1, 60)] + [
        flight(number=99, arr_delay=None)
    ]
    delays = arrival_delays(flights)
    report = report_of(date(2013, 2, 3), len(flights), delays)
    assert report == report_of(date(2013, 2, 3), len(flights), delays)
    (line,) = report.carriers
    assert (report.flights, line.carrier, line.flights) == (60, "UA", 59)
    assert line.low <= line.median <= line.high
    assert report_of(date(2013, 2, 4), 0, {}).carriers == []


@needs_data
class TestRealData:
    def test_every_flight_has_an_identity_and_an_outcome(self) -> None:
        keys: set[str] = set()
        outcomes = dict.fromkeys(Outcome, 0)
        cents = 0
        for day, flights in data.flights_by_day():
            for one in flights:
                keys.add(one.key)
                assessment = assess(one)
                outcomes[assessment.outcome] += 1
                cents += assessment.cents
                assert len(assessment.reason) <= 200
                assert one.key.startswith(f"{day.isoformat()}/")
                assert one.carrier in data.carrier_names()
        assert len(keys) == data.flight_count() == sum(outcomes.values()) == 336_776
        assert outcomes == {
            Outcome.NOT_DUE: 323_449,
            Outcome.COMPENSATED: 3_897,
            Outcome.CANCELLED: 8_255,
            Outcome.UNDETERMINED: 1_175,
        }
        assert cents == 38_222_795_000

    def test_days_are_contiguous_and_limits_cut(self) -> None:
        days = [(day, len(flights)) for day, flights in data.flights_by_day(5_000)]
        assert sum(count for _, count in days) == data.flight_count(5_000) == 5_000
        assert len({day for day, _ in days}) == len(days)

    def test_reading_does_not_load_pandas(self) -> None:
        next(data.flights(1))
        assert data.PACKAGE not in sys.modules
