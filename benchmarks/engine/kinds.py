"""Draining other kinds of tasks than the asynchronous one that does nothing."""

from __future__ import annotations

from benchmarks.engine import apps
from benchmarks.engine.draining import filled_and_drained, record
from benchmarks.engine.stage import Stage

KINDS = {
    "def, in threads": (apps.threads, 10_000),
    "batches of 500": (apps.batches, 60_000),
    "def with a transaction, one row each": (apps.transactions, 5_000),
    "async def with a transaction, one row each": (apps.async_transactions, 2_000),
    "batches of 500 in a transaction, one row each": (apps.batches_in_transactions, 30_000),
}


async def measure(stage: Stage) -> None:
    for _ in stage.rounds():
        for config, (app, count) in KINDS.items():
            runs = stage.size(count, at_least=100)
            drained = await filled_and_drained(stage, apps.named(app.__name__), runs)
            record(stage, config, drained, runs=runs)
