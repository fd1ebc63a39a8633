"""What applies to a task, and where it was set."""

from __future__ import annotations

from lineshaft import App, AsyncTransaction, Limit, Rate, Retry
from lineshaft.control.explain import Explained, explain, known

app = App("shop")
app.queue("payments", limits=[Rate(100, per_seconds=60)])


@app.task
async def plain(n: int) -> str:
    return str(n)


@app.task(
    queue="payments",
    retry=Retry(attempts=5, on=OSError),
    timeout="30s",
    priority=2,
    limits=[Limit(2, per="tenant")],
    tenant=lambda order: order,
    key_retention="1h",
)
def charge(order: str) -> None: ...


@app.task(batch=500)
async def post(entries: list[int], tx: AsyncTransaction) -> None: ...


@app.task(at_most_once=True, run_in="process", tenant="required")
def send(text) -> None: ...


def settings(task: Explained) -> dict[str, tuple[str, bool]]:
    """Name → value, and whether it is the default."""
    return {setting.name: (setting.value, setting.source == "default") for setting in task.settings}


def test_a_task_that_declares_nothing_has_defaults_only() -> None:
    [task] = explain(app.registry, "plain")
    found = settings(task)
    assert {name for name, (_, is_default) in found.items() if not is_default} == {"arguments", "result"}
    assert found["arguments"][0] == "n: int"
    assert found["timeout"][0] == "1 h for each attempt"
    assert found["limits"][0] == "none"


def test_what_is_declared_names_its_place() -> None:
    [task] = explain(app.registry, "charge")
    found = settings(task)
    declared = {name for name, (_, is_default) in found.items() if not is_default}
    assert declared == {
        "arguments", "result", "queue", "timeout", "retry", "priority", "tenant", "limit", "a key is kept",
    }  # fmt: skip
    assert found["retry"][0] == "up to 5 attempts; pauses from 1 s × 2 up to 5 m, full jitter; on OSError"
    limits = {setting.value: setting.source for setting in task.settings if setting.name == "limit"}
    assert list(limits) == ["2 at once for each tenant", "100 starts in 1 m, shared by the queue"]
    of_task, of_queue = limits.values()
    assert of_task == task.where
    assert of_queue == f"{__file__}:9"


def test_special_kinds_are_named() -> None:
    assert settings(explain(app.registry, "post")[0])["batch"][0] == "up to 500 runs, after at most 50 ms"
    assert settings(explain(app.registry, "post")[0])["runs in"] == ("a transaction of the store", False)
    sent = settings(explain(app.registry, "send")[0])
    assert sent["runs in"] == ("a process of the pool", False)
    assert sent["when a worker dies"][0].startswith("at most once")
    assert sent["tenant"] == ("required with each submission", False)
    assert sent["arguments"][0] == "text: plain JSON (no hint)"


def test_an_unknown_name_explains_nothing() -> None:
    assert explain(app.registry, "nothing") == []
    assert known(app.registry) == ["charge", "plain", "post", "send"]
