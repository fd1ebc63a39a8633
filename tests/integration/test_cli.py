"""The command line as a user has it: the main paths in real processes, the rest in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lineshaft.cli.benchmark import workloads
from tests.commands import SHOP, Command, Serving, submit, submitted, wait_for


@pytest.mark.parametrize(("command", "number"), [("run", signal.SIGTERM), ("worker", signal.SIGINT)])
def test_a_signal_drains(here: Path, lineshaft: Command, command: str, number: int) -> None:
    run_id = submitted(here, 'held.submit("a")')
    with Serving(here, command, "shop:app") as serving:
        wait_for(here / "a.started", serving)
        serving.signal(number)
        serving.read_until("draining")
        (here / "a.release").touch()
        assert serving.end() == 0, serving.seen
    assert "1 run ended here, 0 of them failed" in serving.seen
    assert "charge, held, stuck" in serving.seen
    assert str(here / "shop.db") in serving.seen
    shown = lineshaft("runs", "show", run_id, "--json", "--store", "sqlite:///shop.db").document
    assert (shown["state"], shown["result"]) == ("succeeded", "released")


def test_a_second_signal_stops_at_once_and_hands_back(here: Path, lineshaft: Command) -> None:
    ids = [submitted(here, 'held.submit("a")'), submitted(here, 'stuck.submit("b")')]
    with Serving(here, "run", "shop:app", "--grace", "1h") as serving:
        wait_for(here / "a.started", serving)
        wait_for(here / "b.started", serving)
        serving.signal(signal.SIGTERM)
        serving.read_until("draining")
        serving.signal(signal.SIGTERM)
        serving.read_until("stopping at once")
        assert serving.end() == 0, serving.seen
    assert "1 threads are left" in serving.seen
    for run_id in ids:
        shown = lineshaft("runs", "show", run_id, "--json", "--store", "sqlite:///shop.db").document
        assert (shown["state"], shown["attempts"], shown["crashes"]) == ("ready", 0, 0)


def test_only_the_queues_asked_for_are_served(here: Path, lineshaft: Command) -> None:
    left = submitted(here, 'held.submit("a")')
    failed = submitted(here, 'charge.submit(Order(id="1", cents=-1))')
    paid = submitted(here, 'charge.submit(Order(id="2", cents=1))')
    with Serving(here, "worker", "shop:app", "--queue", "payments") as serving:
        serving.read_until("serves queues payments")
        waited = submit(here, f'print(await charge.run("{paid}").result())')
        assert waited == "paid 2"
        why = lineshaft("why", left, "--json", "--store", "sqlite:///shop.db").document
        serving.signal(signal.SIGTERM)
        assert serving.end() == 0
    assert why["reason"] == "no_worker_for_queue"
    shown = lineshaft("runs", "show", failed, "--store", "sqlite:///shop.db")
    assert "ValueError: the bank refused" in shown.out
    assert "shop.py" in shown.out


def test_the_life_of_a_failed_run(here: Path, lineshaft: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINESHAFT_STORE", "sqlite:///shop.db")
    call = 'charge.submit(Order(id="1", cents=-1), key="order-1")'
    submit(
        here,
        f"async with app.worker():\n            await asyncio.wait([asyncio.ensure_future((await {call}).result())])",
    )
    [failed] = lineshaft("runs", "list", "--json", "--state", "failed").document
    assert (failed["task"], failed["attempts"], failed["key"]) == ("charge", 1, "order-1")
    assert failed["error"]["message"] == "the bank refused"
    new = lineshaft("runs", "retry", failed["id"], "--json").document
    assert (new["retry_of"], new["state"], new["key"]) == (failed["id"], "ready", "order-1")
    assert lineshaft("runs", "show", failed["id"], "--json").document["retried_by"] == new["id"]
    again = lineshaft("runs", "retry", failed["id"])
    assert (again.code, again.out) == (1, "")
    assert new["id"] in again.err
    assert lineshaft("runs", "cancel", new["id"], "--json").document == [
        {"id": new["id"], "state": "cancelled"}
    ]
    assert lineshaft("runs", "cancel", new["id"]).out == f"{new['id']}  cancelled\n"
    assert submitted(here, call) == new["id"]


def test_listings(here: Path, lineshaft: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINESHAFT_STORE", "sqlite:///shop.db")
    submit(
        here,
        'await charge.submit_many([Order(id=str(n), cents=n) for n in range(5)]); await held.submit("x", delay="1h")',
    )
    runs = lineshaft("runs", "list", "--json").document
    assert [run["task"] for run in runs] == ["held", *["charge"] * 5]
    assert [run["id"] for run in runs] == sorted((run["id"] for run in runs), reverse=True)
    two = lineshaft("runs", "list", "--json", "--task", "charge", "--limit", "2").document
    assert two == runs[1:3]
    assert lineshaft("runs", "list", "--json", "--before", runs[4]["id"]).document == runs[5:]
    assert lineshaft("runs", "list", "--json", "--tenant", "nobody").document == []
    assert (
        lineshaft("runs", "list", "--json", "--queue", "default", "--state", "scheduled").document == runs[:1]
    )
    table = lineshaft("runs", "list", "--limit", "3")
    assert all(run["id"] in table.out for run in runs[:3])
    assert "There may be more" in table.err
    queues = {queue["queue"]: queue for queue in lineshaft("queues", "--json").document}
    assert queues["payments"]["counts"] == {"ready": 5}
    assert queues["default"]["oldest_ready_s"] is None
    assert "payments" in lineshaft("queues").out
    shown = lineshaft("queues", "show", "payments", "--json").document
    assert (shown["counts"], shown["workers"]) == ({"ready": 5}, [])
    assert lineshaft("workers", "--json").document == []
    assert lineshaft("why", runs[0]["id"]).out.startswith("scheduled  due_time\nIt waits for its due time")


def test_a_queue_shows_who_holds_its_slots(
    here: Path, lineshaft: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINESHAFT_STORE", "sqlite:///shop.db")
    text = SHOP.replace("@app.task\nasync def held", '@app.task(queue="payments")\nasync def held')
    (here / "shop.py").write_text(text)
    submit(here, "await held.submit_many('ab'); await held.submit('c')")
    with Serving(here, "worker", "shop:app") as serving:
        wait_for(here / "a.started", serving)
        wait_for(here / "b.started", serving)
        [limit] = lineshaft("queues", "show", "payments", "--json").document["limits"]
        waiting = lineshaft("runs", "list", "--json", "--state", "ready").document
        why = lineshaft("runs", "why", waiting[0]["id"], "--json").document
        pid = serving.process.pid
        assert f"({pid} on " in lineshaft("queues", "show", "payments").out
    assert (limit["key"], limit["count"], limit["held"]) == ("queue:payments", 2, 2)
    assert [(holder["pid"], holder["held"]) for holder in limit["holders"]] == [(pid, 2)]
    assert (why["reason"], why["limit"]) == ("limit", "queue:payments")
    assert [holder["pid"] for holder in why["holders"]] == [pid]


def test_explain(lineshaft: Command) -> None:
    [task] = lineshaft("explain", "shop:app", "charge", "--json").document
    settings = {setting["name"]: setting for setting in task["settings"]}
    assert settings["timeout"]["source"] == "default"
    assert settings["queue"]["value"] == "payments"
    assert "shop.py:13" in settings["queue"]["source"]
    assert "shop.py:7" in settings["limit"]["source"]
    assert "(default)" in lineshaft("explain", "shop", "charge").out


def test_doctor(here: Path, lineshaft: Command) -> None:
    store = ("--store", "sqlite:///shop.db")
    assert lineshaft("migrate", *store).code == 0
    healthy = lineshaft("doctor", "--json", *store)
    assert {check["name"] for check in healthy.document["checks"]} >= {
        "store",
        "schema",
        "library",
        "workers",
        "disk room",
    }
    submit(here, 'await charge.submit(Order(id="1", cents=1))')
    done = lineshaft("doctor", *store)
    assert done.code == 1
    assert "1 ready run waits" in done.out


def test_migrate_makes_tables_beside_those_of_the_user(here: Path, lineshaft: Command) -> None:
    import sqlite3

    with sqlite3.connect(here / "own.db") as connection:
        connection.execute("CREATE TABLE booking (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO booking VALUES (7)")
    connection.close()
    store = ("--store", "sqlite:///own.db")
    refused = lineshaft("runs", "list", *store)
    assert refused.code == 2
    assert "lineshaft migrate" in refused.err
    assert lineshaft("migrate", "--json", *store).document["before"] is None
    assert "already" in lineshaft("migrate", *store).out
    assert lineshaft("runs", "list", "--json", *store).document == []
    connection = sqlite3.connect(here / "own.db")
    assert connection.execute("SELECT id FROM booking").fetchall() == [(7,)]
    connection.close()


def test_backup_and_restore(here: Path, lineshaft: Command) -> None:
    run_id = submitted(here, 'charge.submit(Order(id="1", cents=1))')
    written = lineshaft("backup", "kept.db", "--json", "--store", "sqlite:///shop.db").document
    assert written["bytes"] == (here / "kept.db").stat().st_size
    assert "exists already" in lineshaft("backup", "kept.db", "--store", "sqlite:///shop.db").err
    refused = lineshaft("restore", "kept.db", "--store", "sqlite:///shop.db")
    assert (refused.code, "exists already" in refused.err) == (1, True)
    (here / "new.db-wal").write_bytes(b"left behind")
    assert "new.db-wal exists already" in lineshaft("restore", "kept.db", "--store", "sqlite:///new.db").err
    (here / "new.db-wal").unlink()
    restored = lineshaft("restore", "kept.db", "--store", "sqlite:///new.db", "--json").document
    assert restored == {"store": "sqlite:///new.db", "unfinished": 1, "running": 0}
    assert (
        lineshaft("runs", "show", run_id, "--json", "--store", "sqlite:///new.db").document["state"]
        == "ready"
    )


@pytest.mark.parametrize("workload", ["throughput", "latency", "backlog"])
def test_bench(here: Path, lineshaft: Command, monkeypatch: pytest.MonkeyPatch, workload: str) -> None:
    monkeypatch.setattr(workloads, "CYCLES", 3)
    runs = {"throughput": 3_000, "latency": 20, "backlog": 1_500}[workload]
    submitted(here, 'charge.submit(Order(id="1", cents=1))')
    store = "sqlite:///shop.db"
    done = lineshaft("bench", "--store", store, "--workload", workload, "--runs", str(runs), "--json")
    assert done.code == 0, done.err
    figures = done.document
    assert (figures["workload"], figures["store"], figures["runs"]) == (workload, store, runs)
    wanted = {
        "throughput": {"submit_per_s", "drain_per_s"},
        "latency": {"p50_ms", "p99_ms"},
        "backlog": {"submit_per_s", "drain_per_s", "small_drain_per_s", "ratio"},
    }[workload]
    assert wanted | {"seconds"} <= set(figures)
    assert all(figures[name] > 0 for name in wanted)
    [left] = lineshaft("queues", "--json", "--store", store).document
    assert (left["queue"], sum(left["counts"].values())) == ("payments", 1)


def test_bench_with_several_processes(here: Path, lineshaft: Command) -> None:
    for workload, runs in (("throughput", "4000"), ("latency", "10")):
        done = lineshaft(
            "bench", "--workload", workload, "--runs", runs, "--processes", "2", "--store", "sqlite:///b.db"
        )
        assert done.code == 0, done.err
        assert workload in done.out


# Bad input


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["runs", "show", "nothing"], 3, "There is no run nothing."),
        (["runs", "retry", "nothing"], 3, "There is no run nothing."),
        (["why", "nothing"], 3, "There is no run nothing."),
        (["queues", "show", "nothing"], 3, "There is no queue 'nothing'"),
        (["explain", "shop:app", "nothing"], 3, "Its tasks are: charge, held, stuck."),
        (["runs", "list", "--state", "odd"], 2, "'odd' is no state of a run. States are scheduled, ready"),
        (["runs", "list", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["runs", "list", "--store", "bogus"], 2, "'bogus' is not the address of a store."),
        (["runs", "list", "--store", "sqlite:///none.db"], 2, "There is no store at sqlite:///none.db"),
        (["runs", "list", "--store", "sqlite:///shop.py"], 2, "is not a SQLite database"),
        (["runs", "show"], 2, "Missing argument 'RUN'. See `lineshaft runs show --help`."),
        (["nothing"], 2, "No such command 'nothing'. See `lineshaft --help`."),
        (["restore", "nothing.db", "--store", "sqlite:///x.db"], 1, "There is no backup nothing.db."),
        (["doctor", "--max-age", "soon"], 2, "--max-age is 'soon'"),
        (["bench", "--workload", "backlog", "--runs", "10"], 2, "--runs is 10"),
        (["worker", "shop:app", "--grace", "soon"], 2, "--grace is 'soon'"),
        (["worker", "nothing:app"], 2, "There is no module 'nothing'"),
        (["worker", "shop:nothing"], 2, "Module 'shop' has no 'nothing'. It has shop:app."),
        (["worker", "shop:Order"], 2, "shop:Order is a ModelMetaclass, not an App."),
        (["worker", "not a module"], 2, "is not MODULE:APP"),
    ],
)
def test_bad_input(lineshaft: Command, arguments: list[str], code: int, told: str) -> None:
    if "--store" not in arguments and arguments[0] in ("runs", "why", "queues", "doctor"):
        assert lineshaft("migrate").code == 0
    done = lineshaft(*arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert told in done.err


@pytest.mark.parametrize("there", ["nothing", "an empty file"])
def test_looking_never_makes_a_store(here: Path, lineshaft: Command, there: str) -> None:
    if there == "an empty file":
        (here / "lineshaft.db").touch()
    before = sorted(here.iterdir())
    for arguments in (
        ["runs", "list"],
        ["queues"],
        ["workers"],
        ["doctor"],
        ["backup", "b.db"],
        ["why", "x"],
    ):
        assert lineshaft(*arguments).code == 2
    assert sorted(here.iterdir()) == before
    assert not (here / "lineshaft.db").exists() or (here / "lineshaft.db").stat().st_size == 0


@pytest.mark.parametrize(
    ("text", "frame", "told"),
    [
        ("def f():\n    return 1 / 0\nf()", "line 2, in f", "raised ZeroDivisionError while it was imported"),
        ("import nowhere_to_be_found", "line 1", "No module named 'nowhere_to_be_found'"),
        ("def f(:", "line 1", "raised SyntaxError"),
        ("from lineshaft import *\nRetry(attempts=0)", "line 2", "Retry attempts is 0"),
        ("raise SystemExit(3)", "", "ended the program while it was imported (exit code 3)"),
        ("x = 1", "", "has no App"),
        (
            "from lineshaft import App\na = App('a')\nb = App('b')",
            "",
            "has 2 Apps (a, b). Say which: broken:NAME.",
        ),
    ],
)
def test_a_broken_module_shows_the_user_s_own_frame(
    here: Path, lineshaft: Command, text: str, frame: str, told: str
) -> None:
    (here / "broken.py").write_text(text)
    done = lineshaft("worker", "broken")
    assert done.code == 2
    assert told in done.err
    assert "site-packages" not in done.err
    if frame:
        assert f'{here / "broken.py"}"' in done.err
        assert frame in done.err


def test_the_module_runs_as_a_program_and_its_import_is_light(here: Path) -> None:
    heavy = "import sys, lineshaft.cli\nprint({'typer', 'rich', 'sqlalchemy'} & set(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", heavy], check=True, capture_output=True, text=True, cwd=here
    )
    assert loaded.stdout == "set()\n"
    text = (
        "import sys, lineshaft.cli.entry\nprint({'rich.table', 'sqlalchemy', 'alembic'} & set(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", text], check=True, capture_output=True, text=True, cwd=here
    )
    assert loaded.stdout == "set()\n"
    shown = subprocess.run(
        [sys.executable, "-m", "lineshaft", "--version"], check=True, capture_output=True, text=True, cwd=here
    )
    assert shown.stdout.startswith("lineshaft ")


def test_completion_knows_the_commands(here: Path) -> None:
    asked = {"_LINESHAFT_COMPLETE": "complete_bash", "COMP_WORDS": "lineshaft wo", "COMP_CWORD": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lineshaft")],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["worker", "workers"]
