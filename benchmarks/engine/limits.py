"""Limits, a rate and a hundred tenants in fair turns, none of them ever reached, against none of all that."""

from __future__ import annotations

from typing import Any

from benchmarks.engine import apps
from benchmarks.engine.draining import filled_and_drained, merged, record_beside
from benchmarks.engine.stage import Stage

OFF = apps.PLAIN
CONFIGS = {
    "limits, a rate and 100 tenants": apps.named("limited"),
    "100 tenants": apps.named("tenants"),
}


async def measure(stage: Stage) -> None:
    runs = stage.size(30_000, at_least=500)
    settings: dict[str, Any] = {"runs": runs, "tenants": apps.TENANTS}
    for _ in stage.rounds():
        for config, make in CONFIGS.items():
            drains = [await filled_and_drained(stage, each, runs) for each in (make, OFF, make, OFF)]
            record_beside(stage, config, merged(drains[::2]), merged(drains[1::2]), **settings)
