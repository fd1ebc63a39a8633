"""Tasks for the process pool, in a module that its children can import. The store comes from the environment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from lineshaft import App, Context, Retry

app = App("pool-tasks")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


@app.task(run_in="process")
def misbehaves(what: str) -> Any:
    match what:
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "raise":
            raise ValueError("no")
        case "unprintable":
            raise Unprintable
        case "object":
            return object()
        case "large":
            return "x" * 2_000_000
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "_exit":
            os._exit(7)
    return None


@app.task(run_in="process")
def double(number: int) -> int:
    return number * 2


@app.task(run_in="process")
async def double_async(number: int) -> int:
    return number * 2


@app.task(run_in="process", timeout=0.3)
def sleeps_briefly_allowed(seconds: float) -> None:
    time.sleep(seconds)


@app.task(run_in="process")
def sleeps(seconds: float) -> None:
    time.sleep(seconds)


@app.task(run_in="process", retry=Retry(attempts=2, initial=0))
def dies_once(mark: str, ctx: Context) -> int:
    if not Path(mark).exists():
        Path(mark).touch()
        os._exit(1)
    return ctx.attempt


@app.task(run_in="process")
def knows(ctx: Context) -> list[Any]:
    ctx.heartbeat()
    return [ctx.run_id, ctx.tenant, ctx.attempt, ctx.idempotency_key]


@app.task(run_in="process")
def reports(ctx: Context) -> None:
    ctx.progress(1)


@app.task(run_in="process", retry=Retry(attempts=3, initial=0, on=(LookupError,)))
def raises_lookup() -> None:
    raise KeyError("no")
