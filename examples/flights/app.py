"""The application: what runs durably, and under which terms.

    settle       many flights at once; their ledger lines and the outcomes of their runs are one commit
    report_day   a day's report, computed in another process
    file_report  the report, written into its table

Functions stay functions: each can be called in a test without an engine.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from pydantic import BaseModel

from examples.flights import ledger
from examples.flights.data import Flight
from examples.flights.delays import DayReport, report_of
from examples.flights.rules import Assessment, Contradiction, Outcome, assess
from lineshaft import App, Failed, Transaction

SETTLEMENT: Final = "settlement"
REPORTS: Final = "reports"

app = App("flights")


class Settlement(BaseModel):
    """The result of settling one flight."""

    key: str
    outcome: Outcome
    cents: int


@app.task(batch=500, batch_wait="50ms", queue=SETTLEMENT, tenant=lambda flight: flight.carrier)
def settle(flights: list[Flight], tx: Transaction) -> list[Settlement | Failed]:
    """Decide each flight's claim and write the ledger.

    The carrier is the tenant, so a large airline's backlog does not keep a small one waiting. A flight
    whose record contradicts itself fails alone; the others of its batch are settled.
    """
    assessed: list[tuple[Flight, Assessment]] = []
    results: list[Settlement | Failed] = []
    for flight in flights:
        try:
            assessment = assess(flight)
        except Contradiction as contradiction:
            results.append(Failed(contradiction))
            continue
        assessed.append((flight, assessment))
        results.append(Settlement(key=flight.key, outcome=assessment.outcome, cents=assessment.cents))
    ledger.write_entries(tx.session, assessed)
    return results


@app.task(run_in="process", queue=REPORTS, timeout=60)
def report_day(day: date, flights: int, delays: dict[str, list[int]]) -> DayReport:
    """Compute a day's report from its number of flights and the known delays of each carrier."""
    return report_of(day, flights, delays)


@app.task(queue=REPORTS)
def file_report(report: DayReport, tx: Transaction) -> None:
    """Write a day's report."""
    ledger.write_report(tx.session, report)
