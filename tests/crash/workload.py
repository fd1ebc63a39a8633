"""The mixed work of the crash harness: tasks of every kind, each leaving a trace that can be counted.

An operation has a name, `kind/submitter/number`, which is the first argument of its run. What it does shows in one
of two places: a row in the table `ledger`, written through a transaction, or a call to the sink, a server outside.
`KINDS` says which, and how its run may end. The environment says where things are: LINESHAFT_STORE, WORKLOAD_SINK
(host:port), and WORKLOAD_HISTORY (how long finished runs are kept).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import text

from lineshaft import App, AsyncTransaction, Context, Limit, Retry, Task, Transaction

HISTORY = os.environ.get("WORKLOAD_HISTORY", "7d")
app = App("workload", history=HISTORY)


def tenant_of(op: str, *_: Any) -> str:
    """Of the operation alone, so that whoever submits it again means the same key."""
    return f"tenant-{int(op.rpartition('/')[2]) % 3}"


task = partial(app.task, tenant=tenant_of)

LEDGER = """
CREATE TABLE IF NOT EXISTS ledger (op TEXT NOT NULL, effect TEXT NOT NULL, attempt INTEGER, pid INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS ledger_once ON ledger (op, effect)
"""
"""One row an effect: whatever attempts an operation has, each of its effects is there once. A second one is refused,
and the run that tried fails, which the checker then finds."""

_WRITE = text("INSERT INTO ledger (op, effect, attempt, pid) VALUES (:op, :effect, :attempt, :pid)")


class TransientError(Exception):
    """What is gone at the next attempt."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


def row(op: str, effect: str, attempt: int | None) -> dict[str, Any]:
    return {"op": op, "effect": effect, "attempt": attempt, "pid": os.getpid()}


def write(tx: Transaction, op: str, effect: str, attempt: int | None = None) -> None:
    """An effect inside a transaction. Batches do not know their attempts."""
    tx.session.execute(_WRITE, row(op, effect, attempt))


async def write_async(tx: AsyncTransaction, op: str, effect: str, attempt: int | None = None) -> None:
    await tx.session.execute(_WRITE, row(op, effect, attempt))


def call(op: str, ctx: Context) -> None:
    """An effect outside, which no transaction holds."""
    trace = {
        "op": op,
        "key": ctx.idempotency_key,
        "run": ctx.run_id,
        "attempt": ctx.attempt,
        "pid": os.getpid(),
    }
    connection = http.client.HTTPConnection(os.environ["WORKLOAD_SINK"], timeout=60)
    try:
        connection.request("POST", "/", json.dumps(trace))
        if connection.getresponse().status != http.HTTPStatus.NO_CONTENT:
            raise ConnectionError(f"The sink did not take {op}.")
    finally:
        connection.close()


def tell_that_it_is_up() -> None:
    """This process has come as far as its work."""
    with Path(os.environ["PROGRAM_FOLDER"], "up.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")


# Effects outside


@task()
def calls(op: str, ctx: Context) -> str:
    call(op, ctx)
    return op


@task()
async def calls_async(op: str, ctx: Context) -> str:
    await asyncio.to_thread(call, op, ctx)
    return op


@task(at_most_once=True)
def calls_once(op: str, ctx: Context) -> str:
    call(op, ctx)
    return op


@task(retry=Retry(attempts=3, initial="50ms", on=(TransientError,)))
def calls_again(op: str, ctx: Context) -> str:
    call(op, ctx)
    if ctx.attempt == 1:
        raise TransientError
    return op


@task(limits=[Limit(4), Limit(2, per="tenant")])
async def calls_limited(op: str, ctx: Context) -> str:
    await asyncio.to_thread(call, op, ctx)
    return op


@task(run_in="process", timeout=60)
def computes(op: str, ctx: Context) -> int:
    call(op, ctx)
    return sum(number * number for number in range(20_000))


# Effects inside


@task()
def books(op: str, tx: Transaction, ctx: Context) -> str:
    write(tx, op, "booked", ctx.attempt)
    return op


@task()
async def books_async(op: str, tx: AsyncTransaction, ctx: Context) -> str:
    await write_async(tx, op, "booked", ctx.attempt)
    return op


@task(batch=20, batch_wait="20ms")
def books_many(ops: list[str], tx: Transaction) -> list[str]:
    for op in ops:
        write(tx, op, "booked")
    return ops


@task(retry=Retry(attempts=3, initial="50ms"))
def books_again(op: str, tx: Transaction, ctx: Context) -> str:
    write(tx, op, "booked", ctx.attempt)
    if ctx.attempt == 1:
        raise TransientError
    return op


@task()
def books_and_submits(op: str, tx: Transaction, ctx: Context) -> str:
    write(tx, op, "booked", ctx.attempt)
    calls.blocking.submit(f"calls/child/{op}", tx=tx)
    return op


# Nothing outside and nothing inside


@task()
async def carries(op: str, load: str) -> str:
    return load


@task()
async def waits(op: str) -> str:
    await asyncio.sleep(0.1)
    return op


@task(timeout=0.1)
async def is_late(op: str) -> None:
    await asyncio.sleep(60)


@task()
async def is_poison(op: str) -> Any:
    match int(op.rpartition("/")[2]) % 5:
        case 0:
            raise Unprintable
        case 1:
            return object()
        case 2:
            return "\ud800"
        case 3:
            return "x" * 2_000_000
    raise SystemExit(3)


EDGE_S = 0.2


@task(timeout=EDGE_S)
async def edges(op: str) -> str:
    """Lasts about as long as it may; not in the mix."""
    await asyncio.sleep(EDGE_S * (0.7 + 0.05 * (int(op.rpartition("/")[2]) % 10)))
    return op


# What lasts until somebody writes the file `released`; not in the mix.


def is_released() -> bool:
    return Path(os.environ["PROGRAM_FOLDER"], "released").exists()


def holds(op: str, ctx: Context) -> str:
    """Tell of the beginning and of the end."""
    call(op, ctx)
    while not is_released():
        time.sleep(0.02)
    call(op, ctx)
    return op


holds_thread = task(name="holds_thread")(holds)


@task()
async def holds_loop(op: str, ctx: Context) -> str:
    await asyncio.to_thread(call, op, ctx)
    while not is_released():  # noqa: ASYNC110 - the file is written by another process
        await asyncio.sleep(0.02)
    await asyncio.to_thread(call, op, ctx)
    return op


@task(run_in="process")
def holds_process(op: str, ctx: Context) -> str:
    return holds(op, ctx)


@dataclass(frozen=True, slots=True)
class Kind:
    """How an operation of one kind may end, and where its effect shows."""

    task: Task[Any, Any]
    effect: str = ""
    """`ledger`, `sink`, or nowhere."""
    ends: tuple[str, ...] = ("succeeded",)
    at_most_once: bool = False


KINDS = {
    "calls": Kind(calls, "sink"),
    "calls_async": Kind(calls_async, "sink"),
    "calls_once": Kind(calls_once, "sink", ("succeeded", "outcome_unknown"), at_most_once=True),
    "calls_again": Kind(calls_again, "sink"),
    "calls_limited": Kind(calls_limited, "sink"),
    "computes": Kind(computes, "sink"),
    "books": Kind(books, "ledger"),
    "books_async": Kind(books_async, "ledger"),
    "books_many": Kind(books_many, "ledger"),
    "books_again": Kind(books_again, "ledger"),
    "books_and_submits": Kind(books_and_submits, "ledger"),
    "carries": Kind(carries),
    "waits": Kind(waits, "", ("succeeded", "cancelled")),
    "is_late": Kind(is_late, "", ("failed",)),
    "is_poison": Kind(is_poison, "", ("failed",)),
    "edges": Kind(edges, "", ("succeeded", "failed", "cancelled")),
    "holds_thread": Kind(holds_thread, "sink"),
    "holds_loop": Kind(holds_loop, "sink"),
    "holds_process": Kind(holds_process, "sink", ("succeeded", "failed")),
}


def arguments(kind: str, op: str) -> tuple[str, ...]:
    """What a run of this operation is submitted with; the same whenever it is asked."""
    if kind == "carries":
        return op, op * (5_000 if op.endswith("0") else 200)
    return (op,)
