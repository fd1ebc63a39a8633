"""The comparison of the flights example finds what it is there to find, and the ledger refuses doubles."""

from __future__ import annotations

from datetime import date

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from examples.flights import ledger
from examples.flights.check import (
    LINES_MAX,
    CarrierTotals,
    add_flights,
    compare_entries,
    compare_report,
    compare_totals,
    readable,
)
from examples.flights.data import Flight
from examples.flights.delays import arrival_delays, report_of
from examples.flights.ledger import CarrierLine, Entry
from examples.flights.rules import assess

DAY = date(2013, 2, 3)


def flight(number: int, arr_delay: int | None, *, dep_time: int | None = 900) -> Flight:
    return Flight(
        day=DAY,
        carrier="UA",
        number=number,
        origin="EWR",
        dest="ORD",
        distance=719,
        sched_dep_time=900,
        sched_arr_time=1030,
        dep_time=dep_time,
        dep_delay=None if dep_time is None else 0,
        arr_time=None if arr_delay is None else 1030,
        arr_delay=arr_delay,
        seats=100,
    )


FLIGHTS = [flight(1, 5), flight(2, 200), flight(3, None), flight(4, None, dep_time=None)]
CONTRADICTION = flight(5, 7, dep_time=None)


def test_totals_and_expected_lines() -> None:
    totals: dict[str, CarrierTotals] = {}
    expected = add_flights(totals, [*FLIGHTS, CONTRADICTION])
    assert [(entry.flight_key, entry.outcome, entry.cents) for entry in expected.values()] == [
        ("2013-02-03/UA/1/EWR", "not due", 0),
        ("2013-02-03/UA/2/EWR", "compensated", 2_075_000),
        ("2013-02-03/UA/3/EWR", "undetermined", 0),
        ("2013-02-03/UA/4/EWR", "cancelled", 2_075_000),
    ]
    carrier = totals["UA"]
    assert (carrier.flights, carrier.paid, carrier.cents, carrier.refused) == (5, 2, 4_150_000, 1)


def test_entries_are_compared_one_by_one() -> None:
    expected = add_flights({}, FLIGHTS)
    right = list(expected.values())
    assert compare_entries(expected, right) == []
    wrong = [
        right[0],
        right[0],
        right[1]._replace(cents=2_075_001),
        right[3],
        Entry("2013-02-03/UA/9/EWR", "cancelled", 1),
    ]
    assert compare_entries(expected, wrong) == [
        "2013-02-03/UA/9/EWR: a ledger line without a flight.",
        "2013-02-03/UA/1/EWR: 2 ledger lines.",
        "2013-02-03/UA/2/EWR: the ledger says compensated, 20,750.01 USD; compensated, 20,750.00 USD expected.",
        "2013-02-03/UA/3/EWR: no ledger line; undetermined, 0.00 USD expected.",
    ]


def test_totals_are_compared_by_carrier_and_outcome() -> None:
    totals: dict[str, CarrierTotals] = {}
    add_flights(totals, FLIGHTS)
    lines = [
        CarrierLine("UA", "cancelled", 1, 2_075_000),
        CarrierLine("UA", "compensated", 1, 2_075_000),
        CarrierLine("UA", "not due", 1, 0),
        CarrierLine("UA", "undetermined", 1, 0),
    ]
    assert compare_totals(totals, lines) == []
    lines[0] = CarrierLine("UA", "cancelled", 2, 2_075_001)
    assert compare_totals(totals, [*lines, CarrierLine("XX", "not due", 1, 0)]) == [
        "UA: 41,500.01 USD in the ledger, 41,500.00 expected.",
        "UA: 2 flights cancelled in the ledger; 1 expected.",
        "XX: 1 flights not due in the ledger; 0 expected.",
    ]


def test_reports_are_compared_with_the_flights_of_their_day() -> None:
    report = report_of(DAY, len(FLIGHTS), arrival_delays(FLIGHTS))
    assert compare_report(DAY, FLIGHTS, report) == []
    assert compare_report(DAY, FLIGHTS, None) == ["2013-02-03: no report."]
    assert compare_report(DAY, FLIGHTS[1:], report) == [
        "2013-02-03: the report is over 4 flights; the data have 3.",
        "2013-02-03: the report has other carriers, numbers or medians than the data.",
    ]


def test_many_differences_are_cut() -> None:
    lines = [str(number) for number in range(LINES_MAX + 3)]
    assert readable(lines[:LINES_MAX]) == lines[:LINES_MAX]
    assert readable(lines) == [*lines[:LINES_MAX], "… and 3 more differences."]


def test_the_ledger_refuses_a_second_line_for_a_flight() -> None:
    engine = sa.create_engine("sqlite://")
    ledger.metadata.create_all(engine)
    assessed = [(one, assess(one)) for one in FLIGHTS]
    with Session(engine) as session, session.begin():
        ledger.write_entries(session, assessed)
        ledger.write_entries(session, [])
    with Session(engine) as session, pytest.raises(sa.exc.IntegrityError, match="ledger"):
        ledger.write_entries(session, assessed[:1])
    engine.dispose()


def test_a_report_takes_the_place_of_an_earlier_one() -> None:
    engine = sa.create_engine("sqlite://")
    ledger.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        for flights in (FLIGHTS[:2], FLIGHTS):
            ledger.write_report(session, report_of(DAY, len(flights), arrival_delays(flights)))
        assert session.execute(sa.select(ledger.day_report.c.flights)).scalars().all() == [4]
    engine.dispose()
