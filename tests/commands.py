"""Running `lineshaft` as a user does: in this process, or in one of its own; for an app in a directory of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lineshaft.cli.entry import run as run_command
from tests.support import PATIENCE_S

SHOP = """
import asyncio, pathlib, time
from pydantic import BaseModel
from lineshaft import App, Limit

app = App("shop", store="sqlite:///shop.db")
app.queue("payments", limits=[Limit(2)])

class Order(BaseModel):
    id: str
    cents: int

@app.task(queue="payments")
async def charge(order: Order) -> str:
    if order.cents < 0:
        raise ValueError("the bank refused")
    return f"paid {order.id}"

@app.task
async def held(name: str) -> str:
    pathlib.Path(f"{name}.started").touch()
    while not pathlib.Path(f"{name}.release").exists():
        await asyncio.sleep(0.01)
    return "released"

@app.task
def stuck(name: str) -> None:
    pathlib.Path(f"{name}.started").touch()
    while True:
        time.sleep(0.01)
"""


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Done]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of the user's, with an app in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LINESHAFT_STORE", raising=False)
    monkeypatch.delenv("LINESHAFT_DEBUG", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shop.py").write_text(SHOP)
    yield tmp_path
    for name in ("shop", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def lineshaft(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["lineshaft", *arguments])
        capfd.readouterr()
        code = run_command()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Done(code, out, err)

    return run


def submit(here: Path, code: str) -> str:
    """Submit in a process of the user's; what it prints."""
    text = f"from shop import *\nasync def main():\n    async with app:\n        {code}\nasyncio.run(main())"
    command = [sys.executable, "-c", text]
    return subprocess.run(command, cwd=here, check=True, capture_output=True, text=True).stdout.strip()


def submitted(here: Path, call: str) -> str:
    """The id of one submitted run."""
    return submit(here, f"print((await {call}).id)")


class Serving:
    """`lineshaft run` or `worker` in a process of its own."""

    def __init__(self, here: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lineshaft", *arguments],
            cwd=here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seen = ""

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen += line
            if text in line:
                return
        raise AssertionError(f"{text!r} did not come; there was:\n{self.seen}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        assert self.process.stdout is not None
        self.seen += self.process.stdout.read()
        return self.process.wait()


def wait_for(path: Path, serving: Serving) -> None:
    """Until a run has made a file."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert serving.process.poll() is None, serving.seen
        assert time.monotonic() < deadline_s, f"{path.name} never came"
        time.sleep(0.01)
