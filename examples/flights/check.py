"""The totals once more, directly from the data and without the engine, and the comparison with the ledger.

Agreement is demanded flight by flight, not only in sum: every flight has exactly one ledger line with the
outcome and the cents that the rules give, no line is without a flight, every carrier agrees to the cent,
and every day has one report over all its flights.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from statistics import median
from typing import Final

from examples.flights import ledger
from examples.flights.app import app
from examples.flights.data import Flight, flights_by_day
from examples.flights.delays import DayReport, arrival_delays
from examples.flights.ledger import CarrierLine, Entry
from examples.flights.rules import Contradiction, Outcome, assess, dollars

LINES_MAX: Final = 20
"""Differences that are shown; beyond it only their number."""


@dataclass
class CarrierTotals:
    """Totals of one carrier. `refused` flights contradict themselves and have no ledger line."""

    flights: int = 0
    cents: int = 0
    refused: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)

    @property
    def paid(self) -> int:
        """Flights with an amount: compensated for delay, or cancelled."""
        return self.outcomes[Outcome.COMPENSATED] + self.outcomes[Outcome.CANCELLED]


def add_flights(totals: dict[str, CarrierTotals], flights: Iterable[Flight]) -> dict[str, Entry]:
    """Add flights to the totals by carrier; return the ledger lines that they must have, by key."""
    expected: dict[str, Entry] = {}
    for flight in flights:
        carrier = totals.setdefault(flight.carrier, CarrierTotals())
        carrier.flights += 1
        try:
            outcome, cents, _ = assess(flight)
        except Contradiction:
            carrier.refused += 1
            continue
        carrier.outcomes[outcome] += 1
        carrier.cents += cents
        expected[flight.key] = Entry(flight.key, outcome.value, cents)
    return expected


def direct_totals(limit: int | None = None) -> dict[str, CarrierTotals]:
    """All totals by carrier, computed from the data alone."""
    totals: dict[str, CarrierTotals] = {}
    for _, flights in flights_by_day(limit):
        add_flights(totals, flights)
    return totals


async def check(limit: int | None = None) -> list[str]:
    """Compare the store with a direct computation; return each difference as a line, none if all agree."""
    totals: dict[str, CarrierTotals] = {}
    differences: list[str] = []
    async with app.transaction() as tx:
        reports = await ledger.reports(tx.session)
    for day, flights in flights_by_day(limit):
        expected = add_flights(totals, flights)
        async with app.transaction() as tx:
            entries = await ledger.entries_of(tx.session, day)
        differences += compare_entries(expected, entries)
        differences += compare_report(day, flights, reports.pop(day, None))
        await asyncio.sleep(0)
    async with app.transaction() as tx:
        lines = await ledger.carrier_lines(tx.session)
    differences += [f"{day}: there is a report, but the data have no flight on this day." for day in reports]
    return compare_totals(totals, lines) + differences


def readable(differences: list[str]) -> list[str]:
    """As many differences as one reads, and the number of the others."""
    hidden = len(differences) - LINES_MAX
    return differences if hidden <= 0 else [*differences[:LINES_MAX], f"… and {hidden:,} more differences."]


def compare_entries(expected: dict[str, Entry], entries: list[Entry]) -> list[str]:
    """Differences between the lines that a day's flights must have and those the ledger has."""
    found = {entry.flight_key: entry for entry in entries}
    lines = [
        f"{entry.flight_key}: a ledger line without a flight."
        for entry in entries
        if entry.flight_key not in expected
    ]
    lines += [
        f"{key}: {count} ledger lines."
        for key, count in Counter(e.flight_key for e in entries).items()
        if count > 1
    ]
    for key, due in expected.items():
        entry = found.get(key)
        if entry is None:
            lines.append(f"{key}: no ledger line; {due.outcome}, {dollars(due.cents)} USD expected.")
        elif entry != due:
            lines.append(
                f"{key}: the ledger says {entry.outcome}, {dollars(entry.cents)} USD; "
                f"{due.outcome}, {dollars(due.cents)} USD expected."
            )
    return lines


def compare_report(day: date, flights: list[Flight], report: DayReport | None) -> list[str]:
    """Differences between a day's report and its flights, except in what is resampled."""
    if report is None:
        return [f"{day}: no report."]
    lines = []
    if report.flights != len(flights):
        lines.append(f"{day}: the report is over {report.flights} flights; the data have {len(flights)}.")
    due = {carrier: (len(delays), median(delays)) for carrier, delays in arrival_delays(flights).items()}
    if due != {line.carrier: (line.flights, line.median) for line in report.carriers}:
        lines.append(f"{day}: the report has other carriers, numbers or medians than the data.")
    return lines


def compare_totals(totals: dict[str, CarrierTotals], lines: list[CarrierLine]) -> list[str]:
    """Differences between the totals by carrier and outcome and those that the database adds up."""
    found = {(line.carrier, line.outcome): line.entries for line in lines}
    cents: Counter[str] = Counter()
    for line in lines:
        cents[line.carrier] += line.cents
    differences = []
    for carrier in sorted(totals.keys() | cents.keys()):
        due, has = totals.get(carrier, CarrierTotals()), cents[carrier]
        if has != due.cents:
            differences.append(f"{carrier}: {dollars(has)} USD in the ledger, {dollars(due.cents)} expected.")
        for outcome, expected in ((outcome, due.outcomes[outcome]) for outcome in Outcome):
            entries = found.get((carrier, outcome.value), 0)
            if entries != expected:
                differences.append(
                    f"{carrier}: {entries:,} flights {outcome.value} in the ledger; {expected:,} expected."
                )
    return differences
