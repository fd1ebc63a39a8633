"""Workers: who is there, and what each holds."""

from __future__ import annotations

from collections.abc import Sequence

from lineshaft.control.desk import Desk, use_case
from lineshaft.store.values import WorkerView


@use_case("workers.read")
async def listing(desk: Desk) -> Sequence[WorkerView]:
    """Workers of the registry; dead ones stay until the next sweep of a live one."""
    return await desk.store.workers()
