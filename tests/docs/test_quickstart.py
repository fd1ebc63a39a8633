"""The quickstart of the README, executed as it stands: real processes, a real `kill -9`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, Command, blocks, commands, missing_output

README = ROOT / "README.md"
SHOWN_PID = "4711"
"""What stands in the README for the number that the reader sees."""
WAIT_S_MAX = 60.0
"""Only ends a test that hangs."""


class Terminal:
    """One command of the quickstart in a directory, its output in a file."""

    def __init__(self, folder: Path, command: str, name: str) -> None:
        self.output = folder.parent / f"{name}.txt"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("LINESHAFT_")},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "COLUMNS": "160",
        }
        with self.output.open("wb") as out:
            # `exec`, so that the process we know is the one that the command started.
            self.process: subprocess.Popen[Any] = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=out, stderr=out
            )

    def text(self) -> str:
        return self.output.read_text("utf-8")

    def until(self, seen: Callable[[str], bool]) -> str:
        """Wait for something in the output."""
        deadline_s = time.monotonic() + WAIT_S_MAX
        while not seen(self.text()):
            ended = self.process.poll()
            assert ended is None, f"{self.process.args} ended with {ended}:\n{self.text()}"
            assert time.monotonic() < deadline_s, f"{self.process.args} has printed only:\n{self.text()}"
            time.sleep(0.05)
        return self.text()

    def end(self) -> int:
        return self.process.wait(timeout=WAIT_S_MAX)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[Command], Terminal]]:
    folder = tmp_path / "quickstart"
    folder.mkdir()
    opened: list[Terminal] = []

    def open_terminal(command: Command) -> Terminal:
        opened.append(Terminal(folder, command.text, f"terminal-{len(opened)}"))
        return opened[-1]

    yield open_terminal
    for each in opened:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def quickstart() -> tuple[dict[str, str], list[Command], str]:
    """Its files, its commands in order, and the last line that it promises."""
    lines = README.read_text("utf-8").splitlines()
    first = lines.index("## Quickstart")
    last = next(number for number in range(first + 1, len(lines)) if lines[number].startswith("## "))
    inside = [block for block in blocks(README) if first < block.line <= last]
    files = {block.title: block.text + "\n" for block in inside if block.title}
    wanted = [
        command
        for block in inside
        if block.language == "console" and not block.not_executed
        for command in commands(block)
    ]
    (promised,) = [block.text for block in inside if block.language == "text"]
    return files, wanted, promised


def test_the_quickstart_is_one_story() -> None:
    files, wanted, promised = quickstart()
    assert list(files) == ["app.py", "submit.py"]
    assert [command.text for command in wanted] == [
        "lineshaft run app:app",
        "python submit.py",
        f"kill -9 {SHOWN_PID}",
        "lineshaft run app:app",
        "lineshaft runs list",
    ]
    assert promised.startswith("result: ")


def test_the_quickstart_works(tmp_path: Path, terminal: Callable[[Command], Terminal]) -> None:
    files, (start, submit, kill, start_again, look), promised = quickstart()
    for name, text in files.items():
        (tmp_path / "quickstart" / name).write_text(text)

    first = terminal(start)
    submitting = terminal(submit)
    submitting.until(lambda text: "accepted:" in text)
    assert not missing_output(submit.output, submitting.text())

    seen = re.search(r"page 3 of 10, in process (\d+)", first.until(lambda text: "page 3 of 10" in text))
    assert seen
    assert int(seen[1]) == first.process.pid, "the number on the page is not that of the worker"
    killing = Command(kill.text.replace(SHOWN_PID, seen[1]), kill.output)
    # `kill` is a part of the shell, so it is no program that could be started in its place.
    subprocess.run(["bash", "-c", killing.text], check=True)
    assert first.end() == -signal.SIGKILL
    assert "page 10" not in first.text()
    assert submitting.process.poll() is None

    second = terminal(start_again)
    assert submitting.end() == 0, submitting.text()
    assert promised in submitting.text().splitlines()
    assert second.text().count("page 1 of 10") == 1

    looking = terminal(look)
    assert looking.end() == 0, looking.text()
    assert not missing_output(look.output, looking.text())

    again = terminal(submit)
    assert again.end() == 0, again.text()
    assert again.text() == submitting.text()

    second.process.send_signal(signal.SIGTERM)
    assert second.end() == 0, second.text()


def test_the_example_in_the_checkout_is_the_quickstart() -> None:
    files, *_ = quickstart()
    for name, text in files.items():
        assert (ROOT / "examples/quickstart" / name).read_text("utf-8") == text


def test_the_environment_is_installed_as_the_readme_says() -> None:
    """The one block that is not executed: what it would install is here."""
    assert shutil.which("lineshaft", path=str(Path(sys.executable).parent))
