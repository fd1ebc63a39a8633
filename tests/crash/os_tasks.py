"""The tasks of `os_programs`. They stand in a module of their own, since children of the process pool import it."""

from __future__ import annotations

import asyncio
import os
import time

from lineshaft import App, Context, Rate, Transaction
from tests.crash.os_record import tell

LEDGER = "CREATE TABLE IF NOT EXISTS ledger (run TEXT, number INTEGER)"

app = App("bent")


@app.task
def book(number: int, tx: Transaction, ctx: Context) -> int:
    """Write a row, which commits with the outcome."""
    from sqlalchemy import text

    row = {"run": ctx.run_id, "number": number}
    tx.session.execute(text("INSERT INTO ledger (run, number) VALUES (:run, :number)"), row)
    return number


@app.task
async def note(number: int) -> int:
    return number


@app.task
async def dwell(number: int, seconds: float, ctx: Context) -> int:
    """Take a while, and tell when that began, by the wall clock of this process, and ended."""
    tell("began", ctx.run_id, os.getpid(), time.time())
    await asyncio.sleep(seconds)
    tell("ended", ctx.run_id)
    return number


@app.task(limits=[Rate(200, per_seconds=1)])
async def paced(number: int) -> int:
    return number


@app.task
async def hog(mebibytes: int) -> int:
    return _use(mebibytes)


@app.task(run_in="process")
def hog_in_child(mebibytes: int) -> int:
    return _use(mebibytes)


def _use(mebibytes: int) -> int:
    """Use so much memory, page by page, and keep it until somebody notices."""
    held = [bytearray(os.urandom(1_024) * 1_024) for _ in range(mebibytes)]
    time.sleep(60)
    return len(held)
