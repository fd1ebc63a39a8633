"""What commands show to people: tables and sentences, where JSON would not do."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.commands import SHOP, Command, Serving, submit, submitted, wait_for
from tests.support import PATIENCE_S

MORE = (
    SHOP.replace("import App, Limit", "import App, Context, Limit, Rate, Retry")
    + """
app.queue("slow", limits=[Limit(1, per="tenant")])
app.queue("paced", limits=[Rate(1, 3_600), Rate(9, 60, per="tenant")])

@app.task(queue="slow", tenant="required")
async def slowly(name: str) -> str:
    pathlib.Path(f"{name}.started").touch()
    while not pathlib.Path(f"{name}.release").exists():
        await asyncio.sleep(0.01)
    return "released"

@app.task(queue="paced", tenant="required")
async def paced() -> None:
    pass

@app.task(retry=Retry(attempts=2, initial=0))
async def fails(text: str, blob: str, ctx: Context) -> None:
    ctx.progress(1, 4, "on the [bold]way[/]")
    raise ValueError(text)
"""
)


@pytest.fixture(autouse=True)
def store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "shop.py").write_text(MORE)
    monkeypatch.setenv("LINESHAFT_STORE", "sqlite:///shop.db")
    monkeypatch.setenv("COLUMNS", "300")


def test_workers(here: Path, lineshaft: Command) -> None:
    lineshaft("migrate")
    assert lineshaft("workers").out == "No worker is registered.\n"
    with Serving(here, "worker", "shop:app") as serving:
        submit(here, "await held.submit('a')")
        wait_for(here / "a.started", serving)
        [worker] = lineshaft("workers", "--json").document
        assert (worker["pid"], worker["alive"], worker["held"]) == (serving.process.pid, True, 1)
        shown = lineshaft("workers").out
        row = next(line for line in shown.splitlines() if str(serving.process.pid) in line)
        assert "alive" in row
        assert "charge, fails, held, paced, slowly, stuck" in row
        assert " all " in row
        serving.signal(signal.SIGKILL)
        serving.end()
        row = next(line for line in lineshaft("workers").out.splitlines() if str(serving.process.pid) in line)
        assert "dead" in row


def test_limits_by_tenant(here: Path, lineshaft: Command) -> None:
    with Serving(here, "worker", "shop:app") as serving:
        submit(here, 'await slowly.submit("a", tenant="acme")')
        wait_for(here / "a.started", serving)
        [limit] = lineshaft("queues", "show", "slow", "--json").document["limits"]
        assert (limit["key"], limit["count"], limit["held"]) == ("queue:slow/tenant:acme", 1, 1)
        assert [holder["pid"] for holder in limit["holders"]] == [serving.process.pid]
        row = next(
            line for line in lineshaft("queues", "show", "slow").out.splitlines() if "tenant:acme" in line
        )
        assert "1 at once" in row
        assert f"({serving.process.pid} on " in row
        submit(here, 'await slowly.submit("b", tenant="zeta")')
        wait_for(here / "b.started", serving)
        assert "tenant:zeta" in lineshaft("queues", "show", "slow").out
        for name in "ab":
            (here / f"{name}.release").touch()
        ended(lineshaft, 2)
        [limit] = lineshaft("queues", "show", "slow", "--json").document["limits"]
        assert (limit["key"], limit["held"], limit["holders"]) == ("queue:slow/tenant:*", 0, [])


def test_rates(here: Path, lineshaft: Command) -> None:
    with Serving(here, "worker", "shop:app") as serving:
        submit(here, 'await paced.submit(tenant="acme")')
        ended(lineshaft, 1)
        whole, by_tenant = lineshaft("queues", "show", "paced", "--json").document["limits"]
        assert (whole["key"], whole["count"], whole["held"]) == ("queue:paced/rate", 1, None)
        assert by_tenant["key"] == "queue:paced/tenant:*/rate"
        shown = lineshaft("queues", "show", "paced").out
        assert "1 in 1 h" in shown
        assert "9 in 1 m" in shown
        assert re.search("opens in (59 m|1 h)", shown)
        run_id = submitted(here, 'paced.submit(tenant="acme")')
        assert lineshaft("why", run_id, "--json").document["reason"] == "rate"
        assert serving.process.poll() is None


def ended(lineshaft: Command, count: int) -> None:
    """Wait until so many runs have succeeded."""
    deadline_s = time.monotonic() + PATIENCE_S
    while len(lineshaft("runs", "list", "--json", "--state", "succeeded").document) < count:
        assert time.monotonic() < deadline_s


def facts(shown: str) -> dict[str, str]:
    """The lines of a name and a value that a run begins with."""
    lines = (re.split(r" {2,}", line.strip(), maxsplit=1) for line in shown.splitlines())
    return {pair[0]: pair[1] for pair in lines if len(pair) == 2}


def test_one_run(here: Path, lineshaft: Command) -> None:
    submit(here, 'await fails.submit("no [red]ink[/]", "x" * 9_000, key="order-1", priority=5)')
    [run] = lineshaft("runs", "list", "--json").document
    waiting = lineshaft("runs", "show", run["id"]).out
    assert facts(waiting)["key"] == "order-1"
    assert facts(waiting)["priority"] == "5"
    assert "earlier attempts" not in waiting
    with Serving(here, "run", "shop:app"):
        deadline_s = time.monotonic() + PATIENCE_S
        while lineshaft("runs", "list", "--json", "--state", "failed").document == []:
            assert time.monotonic() < deadline_s
    shown = lineshaft("runs", "show", run["id"]).out
    assert "ValueError: no [red]ink[/]" in shown, "what users wrote is no markup"
    assert "earlier attempts" in shown
    assert facts(shown)["attempts"] == "2"
    assert "on the CPU" in shown
    assert "finished" in shown
    assert "traceback of the last error" in shown
    assert "raise ValueError(text)" in shown
    assert "--json prints everything" in shown
    assert "x" * 9_000 not in shown
    assert lineshaft("runs", "show", run["id"], "--json").document["arguments"]["blob"] == "x" * 9_000
    new = lineshaft("runs", "retry", run["id"], "--json").document["id"]
    assert facts(lineshaft("runs", "show", run["id"]).out)["retried by"] == new
    assert facts(lineshaft("runs", "show", new).out)["retry of"] == run["id"]
    assert f"{run['id']}  failed already; left as it is\n" == lineshaft("runs", "cancel", run["id"]).out


def test_a_run_under_way(here: Path, lineshaft: Command) -> None:
    with Serving(here, "worker", "shop:app") as serving:
        run_id = submitted(here, 'held.submit("a")')
        wait_for(here / "a.started", serving)
        shown = lineshaft("runs", "show", run_id).out
        assert "1, the last one under way" in shown
        assert "on worker 1" in shown
        cancelled = lineshaft("runs", "cancel", run_id).out
        assert cancelled == f"{run_id}  running; its worker was asked to stop it\n"


def test_a_queue_of_which_there_is_no_trace(lineshaft: Command) -> None:
    lineshaft("migrate")
    assert lineshaft("queues").out == "No queue has unfinished runs.\n"
    done = lineshaft("queues", "show", "nowhere")
    assert (done.code, done.out) == (3, "")
    assert "There is no queue 'nowhere'" in done.err


def test_a_queue_without_workers(here: Path, lineshaft: Command) -> None:
    submit(here, 'await charge.submit(Order(id="1", cents=1))')
    shown = lineshaft("queues", "show", "payments").out
    assert "1 ready" in shown
    assert "no live worker" in shown
    assert "Limit" not in shown
