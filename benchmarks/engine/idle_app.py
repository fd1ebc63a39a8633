"""The app of the idle worker, on the store that LINESHAFT_STORE names."""

from __future__ import annotations

from lineshaft import App
from lineshaft.cli.benchmark.work import charge

app = App("idle")
app.task(name="charge")(charge)
