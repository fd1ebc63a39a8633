"""Settings of a worker that cannot be meant are refused before it starts (FAILURES row 28)."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lineshaft.core.errors import InvalidSetting
from lineshaft.engine.places import Concurrency
from tests.support import new_app

ABSURD: list[Any] = [
    0,
    -1,
    0.5,
    "1ms",
    "2h",
    timedelta(days=1),
    1e300,
    float("inf"),
    float("nan"),
    True,
    None,
    "soon",
]


@pytest.mark.parametrize("lease", ABSURD, ids=repr)
async def test_a_lease_that_cannot_be_kept_is_refused(tmp_path: Path, lease: Any) -> None:
    async with new_app(tmp_path) as app:
        with pytest.raises(InvalidSetting, match="lease"):
            await app.worker(lease=lease).__aenter__()
        assert await app.runtime.store.workers() == [], "it was registered before it was refused"


@pytest.mark.parametrize("lease", [1, "1s", 15, "1h"], ids=repr)
async def test_the_bounds_of_a_lease_can_be_kept(tmp_path: Path, lease: Any) -> None:
    async with new_app(tmp_path) as app, app.worker(lease=lease) as worker:
        assert worker.id > 0


@pytest.mark.parametrize("grace", [-1, float("nan"), "never", True], ids=repr)
async def test_a_grace_that_is_no_time_is_refused(tmp_path: Path, grace: Any) -> None:
    async with new_app(tmp_path) as app:
        with pytest.raises(InvalidSetting, match="grace"):
            await app.worker(grace=grace).__aenter__()
        assert await app.runtime.store.workers() == []


@pytest.mark.parametrize("slots", [0, -1, True, 1.5])
@pytest.mark.parametrize(
    "place", ["on_loop", "threads", "processes", "runs_per_process_max", "process_bytes_max"]
)
def test_room_for_nothing_is_refused(place: str, slots: Any) -> None:
    with pytest.raises(InvalidSetting, match=place):
        Concurrency(**{place: slots})


@pytest.mark.parametrize(
    "options",
    [["--grace=never"], ["--grace=-1"], ["--grace=inf"], ["--concurrency=0"], ["--threads=-2"]],
    ids=" ".join,
)
def test_the_command_line_refuses_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    from lineshaft.cli import main

    (tmp_path / "absurd_settings.py").write_text("from lineshaft import App\n\napp = App('absurd')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lineshaft", "worker", "absurd_settings:app", *options])
    with pytest.raises(SystemExit) as ended:
        sys.exit(main())
    assert ended.value.code == 2
    assert options[0].split("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "lineshaft.db").exists()
