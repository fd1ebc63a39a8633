"""Submits what is not settled yet, and waits, at a bounded distance ahead of the worker.

What an earlier start has settled stands in the ledger and is passed over without a submission. What it had
submitted but not settled is submitted again under the same key, which yields the run that is there already;
only what has failed is tried once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from typing import Final

from examples.flights import ledger
from examples.flights.app import SETTLEMENT, app, file_report, report_day, settle
from examples.flights.data import Flight, flight_count, flights_by_day
from examples.flights.delays import DayReport, arrival_delays
from examples.flights.display import Display
from lineshaft import RunFailure

CHUNK_FLIGHTS: Final = 2_000
"""Flights submitted at once."""
AHEAD_FLIGHTS_MAX: Final = 20_000
"""Flights submitted and not finished; beyond it submitting waits for the worker."""
LOOK_S: Final = 0.1
"""Seconds between two looks at the queue."""


async def settle_all(limit: int | None, display: Display) -> None:
    """Have every flight settled; return when the queue is empty."""
    total = await asyncio.to_thread(flight_count, limit)
    async with app.transaction() as tx:
        known = await ledger.entries_by_day(tx.session)
    display.start("Settling flights", total, done=min(total, sum(known.values())))
    submitted = 0
    if sum(known.values()) < total:
        async for chunk, passed in _unsettled(limit, known):
            submitted += passed
            if chunk:
                await _settled_up_to(submitted, AHEAD_FLIGHTS_MAX - len(chunk), display)
                await settle.submit_many(chunk, key=lambda flight: flight.key, retry_failed=True)
                submitted += len(chunk)
        await _settled_up_to(submitted, 0, display)
    display.finish()


async def _settled_up_to(submitted: int, unfinished_max: int, display: Display) -> None:
    """Wait until at most `unfinished_max` flights are queued or being settled; show how it goes."""
    while True:
        queue = await app.queue_stats(SETTLEMENT)
        display.show(submitted - queue.unfinished, queue.failed, queue.oldest_age_s)
        if queue.unfinished <= unfinished_max:
            return
        await asyncio.sleep(LOOK_S)


async def _unsettled(limit: int | None, known: dict[date, int]) -> AsyncIterator[tuple[list[Flight], int]]:
    """Chunks of flights without a ledger entry, each with the number of flights passed over before it."""
    chunk: list[Flight] = []
    passed = 0
    for day, flights in flights_by_day(limit):
        unsettled = await _without_entry(day, flights) if known.get(day) else flights
        passed += len(flights) - len(unsettled)
        chunk += unsettled
        while len(chunk) >= CHUNK_FLIGHTS:
            yield chunk[:CHUNK_FLIGHTS], passed
            chunk, passed = chunk[CHUNK_FLIGHTS:], 0
    yield chunk, passed


async def _without_entry(day: date, flights: list[Flight]) -> list[Flight]:
    async with app.transaction() as tx:
        settled = {entry.flight_key for entry in await ledger.entries_of(tx.session, day)}
    return [flight for flight in flights if flight.key not in settled]


async def report_all(limit: int | None, display: Display) -> None:
    """Have the report of every day computed and filed.

    A report is made again where an earlier start had fewer flights of its day.
    """
    async with app.transaction() as tx:
        settled = await ledger.entries_by_day(tx.session)
        filed = {day: report.flights for day, report in (await ledger.reports(tx.session)).items()}
    made = sum(filed.get(day) == flights for day, flights in settled.items())
    display.start("Reporting days", len(settled), done=made)
    if filed != settled:
        async with asyncio.TaskGroup() as group:
            for day, flights in flights_by_day(limit):
                if filed.get(day) != len(flights):
                    group.create_task(_report(day, len(flights), arrival_delays(flights), display))
                await asyncio.sleep(0)  # let the worker begin with the first days
    display.finish()


async def _report(day: date, flights: int, delays: dict[str, list[int]], display: Display) -> None:
    key = f"{day.isoformat()}/{flights}"
    try:
        computing = await report_day.submit(day, flights, delays, key=key, retry_failed=True)
        report: DayReport = await computing.result()
        filing = await file_report.submit(report, key=key, retry_failed=True)
        await filing.result()
    except RunFailure:
        display.advance(failed=True)  # the run keeps why; the comparison names the day
    else:
        display.advance()
