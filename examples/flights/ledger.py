"""The tables of the clearing house, in the same database as the engine's own.

`ledger` has one entry a flight. Its primary key is the flight's key, so the database itself refuses a second
entry; since a key begins with its day, a day is a range of the primary key and needs no index of its own.
`day_report` has one row a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from examples.flights.data import Flight
from examples.flights.delays import DayReport
from examples.flights.rules import Assessment

metadata = sa.MetaData()

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("flight_key", sa.String(40), primary_key=True),
    sa.Column("carrier", sa.String(2), nullable=False),
    sa.Column("day", sa.Date, nullable=False),
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("cents", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(200), nullable=False),
    sqlite_with_rowid=False,
)

day_report = sa.Table(
    "day_report",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("flights", sa.Integer, nullable=False),
    sa.Column("carriers", sa.JSON, nullable=False),
)

KEY_END: Final = "0"
"""Sorts directly after the `/` that follows the day in a key."""


class Entry(NamedTuple):
    """What the comparison reads of a ledger line."""

    flight_key: str
    outcome: str
    cents: int


class CarrierLine(NamedTuple):
    """Number and sum of one carrier's entries with one outcome."""

    carrier: str
    outcome: str
    entries: int
    cents: int


async def create_tables(session: AsyncSession) -> None:
    """Create what is not there yet; a restarted program finds everything in place."""
    for table in metadata.sorted_tables:
        await session.execute(CreateTable(table, if_not_exists=True))


def write_entries(session: Session, assessed: Sequence[tuple[Flight, Assessment]]) -> None:
    """Write one line a flight, all in one statement."""
    if assessed:
        session.execute(sa.insert(ledger), [_line(flight, assessment) for flight, assessment in assessed])


def write_report(session: Session, report: DayReport) -> None:
    """Write the report of a day in the place of an earlier one, made when fewer flights were known."""
    carriers = [line.model_dump() for line in report.carriers]
    session.execute(sa.delete(day_report).where(day_report.c.day == report.day))
    session.execute(sa.insert(day_report).values(day=report.day, flights=report.flights, carriers=carriers))


async def entries_by_day(session: AsyncSession) -> dict[date, int]:
    """How many flights of each day are settled."""
    rows = await session.execute(sa.select(ledger.c.day, sa.func.count()).group_by(ledger.c.day))
    return dict(rows.tuples().all())


async def entries_of(session: AsyncSession, day: date) -> list[Entry]:
    """The entries of one day."""
    first = day.isoformat()
    rows = await session.execute(
        sa.select(ledger.c.flight_key, ledger.c.outcome, ledger.c.cents).where(
            ledger.c.flight_key >= first, ledger.c.flight_key < first + KEY_END
        )
    )
    return [Entry(*row) for row in rows]


async def carrier_lines(session: AsyncSession) -> list[CarrierLine]:
    """Entries and cents by carrier and outcome."""
    rows = await session.execute(
        sa.select(ledger.c.carrier, ledger.c.outcome, sa.func.count(), sa.func.sum(ledger.c.cents))
        .group_by(ledger.c.carrier, ledger.c.outcome)
        .order_by(ledger.c.carrier, ledger.c.outcome)
    )
    return [CarrierLine(carrier, outcome, entries, int(cents)) for carrier, outcome, entries, cents in rows]


async def reports(session: AsyncSession) -> dict[date, DayReport]:
    """The reports that are written, by day."""
    rows = await session.execute(sa.select(day_report.c.day, day_report.c.flights, day_report.c.carriers))
    return {
        day: DayReport.model_validate({"day": day, "flights": flights, "carriers": carriers})
        for day, flights, carriers in rows
    }


def _line(flight: Flight, assessment: Assessment) -> dict[str, Any]:
    return {
        "flight_key": flight.key,
        "carrier": flight.carrier,
        "day": flight.day,
        "outcome": assessment.outcome.value,
        "cents": assessment.cents,
        "reason": assessment.reason,
    }
