"""A program that is killed, stopped and restarted: a worker process with tasks that misbehave on request.

`python -m tests.crash.programs worker [lease] [grace] [crashes]`, with LINESHAFT_STORE and PROGRAM_FOLDER in the
environment; `crashes` is the bound after which a run that kills alone is given up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lineshaft import App, AsyncTransaction, Context, Limit, Transaction
from lineshaft.core import bounds

FOLDER = Path(os.environ.get("PROGRAM_FOLDER", "."))


def note(name: str, line: str) -> None:
    with open(FOLDER / name, "a") as file:
        file.write(f"{line}\n")


def insert() -> Any:
    # Imported when used: what writes nothing starts faster without it, and some of these are started often.
    from sqlalchemy import text

    return text("INSERT INTO ledger (run, number) VALUES (:run, :number)")


def declare_on(app: App) -> SimpleNamespace:  # noqa: C901 - a list of small functions
    """The tasks, declared on this app."""

    @app.task(name="book")
    def book(number: int, tx: Transaction, ctx: Context) -> int:
        tx.session.execute(insert(), {"run": ctx.run_id, "number": number})
        return number

    @app.task(name="book_async")
    async def book_async(number: int, tx: AsyncTransaction, ctx: Context) -> int:
        await tx.session.execute(insert(), {"run": ctx.run_id, "number": number})
        return number

    @app.task(name="book_many", batch=20)
    def book_many(numbers: list[int], tx: Transaction) -> list[int]:
        for number in numbers:
            tx.session.execute(insert(), {"run": f"batch-{number}", "number": number})
        return numbers

    @app.task(name="book_late", batch=100, batch_wait=1.5)
    def book_late(numbers: list[int], tx: Transaction) -> list[int]:
        for number in numbers:
            tx.session.execute(insert(), {"run": f"late-{os.getpid()}", "number": number})
        return numbers

    @app.task(name="limited", limits=[Limit(4), Limit(2, per="tenant")], tenant=lambda name, seconds: name)
    async def limited(name: str, seconds: float) -> None:
        began_s = time.monotonic()
        await asyncio.sleep(seconds)
        note("spans.txt", f"{name} {os.getpid()} {began_s} {time.monotonic()}")

    @app.task(name="meek")
    async def meek(number: int) -> int:
        await asyncio.sleep(0.05)
        return number

    @app.task(name="meek_thread")
    def meek_thread(number: int) -> int:
        time.sleep(0.05)
        return number

    @app.task(name="killer")
    async def killer() -> None:
        os._exit(9)

    @app.task(name="killer_thread")
    def killer_thread() -> None:
        time.sleep(0.02)
        os._exit(9)

    @app.task(name="once", at_most_once=True)
    async def once(kill: bool) -> str:
        note("once.txt", str(os.getpid()))
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    @app.task(name="slow")
    async def slow(seconds: float, ctx: Context) -> int:
        note("slow.txt", f"{ctx.run_id} {os.getpid()}")
        await asyncio.sleep(seconds)
        return os.getpid()

    @app.task(name="slow_thread")
    def slow_thread(seconds: float, ctx: Context) -> int:
        note("slow.txt", f"{ctx.run_id} {os.getpid()}")
        time.sleep(seconds)
        return os.getpid()

    @app.task(name="slow_transaction")
    def slow_transaction(seconds: float, tx: Transaction, ctx: Context) -> int:
        note("slow.txt", f"{ctx.run_id} {os.getpid()}")
        time.sleep(seconds)
        return os.getpid()

    @app.task(name="who")
    async def who() -> int:
        return os.getpid()

    return SimpleNamespace(**{name: value for name, value in locals().items() if name != "app"})


async def worker(lease: float, grace: float) -> None:
    """Until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    app = App("program")
    declare_on(app)
    async with app, app.worker(lease=lease, grace=grace):
        note("workers.txt", str(os.getpid()))
        await told.wait()


def main(arguments: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
    lease, grace, crashes = [*arguments[1:], *("10", "5", str(bounds.CRASHES_MAX))[len(arguments) - 1 :]]
    setattr(bounds, "CRASHES_MAX", int(crashes))  # noqa: B010 - it is final for all but this program
    asyncio.run(worker(float(lease), float(grace)))


if __name__ == "__main__":
    main(sys.argv[1:])
