"""Every benchmark of the engine runs, at a tiny scale, and finds what it is about."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.engine import __main__ as program
from benchmarks.engine.apps import PLAIN
from benchmarks.engine.catalogue import CATALOGUE, Benchmark
from benchmarks.engine.draining import Drained, app_of, working
from benchmarks.engine.stage import Stage
from benchmarks.engine.terminal import Terminal
from benchmarks.measurement import Results
from benchmarks.report import engine as report
from lineshaft.cli.benchmark.work import orders

ROOT = Path(__file__).parents[2]
SCALE = 0.001


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where worker processes find the apps of the benchmarks."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("benchmark", CATALOGUE, ids=lambda benchmark: benchmark.name)
def test_it_measures(benchmark: Benchmark, tmp_path: Path) -> None:
    results = Results("2026-01-01T00:00:00+00:00", {})
    with Terminal(Console(quiet=True)) as terminal:
        asyncio.run(benchmark.measure(Stage(benchmark.name, results, tmp_path, 1, SCALE, terminal)))
    assert {found.bench for found in results} == {benchmark.name}
    # Not every rate is known: so few runs may all be done by the time that the first is seen.
    values = [found.values for found in results]
    assert all(len(each) == 1 for each in values)
    assert any(each != [None] for each in values)
    for counted in report.COUNTED:
        assert [found.values for found in results if found.metric == counted and found.values != [0]] == []
    aimed = {(aim.config, aim.metric) for aim in report.AIMS if aim.bench == benchmark.name}
    assert aimed <= {(found.config, found.metric) for found in results}
    assert not list(tmp_path.rglob("*.db"))


async def test_lost_and_doubled_runs_are_found(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'store.db'}"
    app, task = app_of(PLAIN, address)
    drained = Drained()
    async with app:
        await task.submit_many(orders(5))
        async with working(address, 0, app, PLAIN, drained) as fleet:
            connection = app.connect()
            connection.execute("DELETE FROM lineshaft_run WHERE id = (SELECT max(id) FROM lineshaft_run)")
            connection.close()
            fleet._done = [2]  # as if workers had executed what the store does not know to be finished
    assert (drained.lost, drained.doubled, drained.left) == (1, 2, 4)


def test_what_is_not_measured_again_stays(tmp_path: Path) -> None:
    out = tmp_path / "engine.json"
    arguments = ["--rounds", "1", "--folder", str(tmp_path), "--out", str(out), "--only"]
    program.main([*arguments, "import", "--scale", "0.1"])
    before = json.loads(out.read_text())["measurements"]
    program.main([*arguments, "submit", "--scale", "0.01"])
    after = json.loads(out.read_text())["measurements"]
    assert [found for found in after if found["bench"] == "import"] == before
    assert {found["bench"] for found in after} == {"import", "submit"}
    assert (
        "| `import lineshaft` | at most 100 ms |"
        in report.files(Results.read(out))[report.PAGE]["engine-aims"]
    )
