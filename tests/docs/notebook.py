"""Executes one page, in a process and a directory of its own: `python -m tests.docs.notebook PAGE`.

Python blocks share one namespace and one event loop, as in a notebook. Console blocks are executed by a shell
in the same directory; there `$RUN` is the id of the page's latest `run`.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

from tests.docs.pages import TRIED, Block, blocks, commands, missing_output

COMMAND_S_MAX = 60


class Notebook:
    """One page under way."""

    def __init__(self) -> None:
        self.module = types.ModuleType("page")
        # Pydantic and pickle-free imports look classes up by the name of their module.
        sys.modules["page"] = self.module
        self.background: list[subprocess.Popen[bytes]] = []
        self.runner = asyncio.Runner()

    def execute(self, block: Block) -> None:
        if block.language == "console":
            self.console(block)
        elif block.title:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", "utf-8")
            if path.suffix == ".py":
                importlib.invalidate_caches()
                importlib.import_module(path.stem)
        else:
            self.python(block)

    def python(self, block: Block) -> None:
        # The lines before it are blank, so that a traceback names the line of the page.
        text = "\n" * (block.line - 1) + block.text
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(text, str(block.page), "exec", flags=flags, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            function = types.FunctionType(code, self.module.__dict__)
            self.runner.run(function())
        else:
            exec(code, self.module.__dict__)

    def console(self, block: Block) -> None:
        run = getattr(self.module, "run", None)
        environment = {**os.environ, "RUN": getattr(run, "id", "")}
        for command in commands(block):
            if command.text.endswith("&"):
                self.background.append(
                    subprocess.Popen(
                        ["bash", "-c", f"exec {command.text.removesuffix('&')}"], env=environment
                    )
                )
                continue
            done = subprocess.run(
                ["bash", "-c", command.text],
                env=environment,
                capture_output=True,
                text=True,
                timeout=COMMAND_S_MAX,
                check=False,
            )
            printed = done.stdout + done.stderr
            missing = missing_output(command.output, printed)
            if done.returncode or missing:
                raise AssertionError(
                    f"{block.where}: {command.text}\nexit code {done.returncode}, missing {missing}, in:\n{printed}"
                )

    def close(self) -> None:
        for process in self.background:
            process.send_signal(signal.SIGTERM)
        for process in self.background:
            try:
                process.wait(timeout=COMMAND_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
        self.runner.close()


def main(page: Path) -> None:
    sys.path.insert(0, str(Path.cwd()))
    notebook = Notebook()
    executed = 0
    try:
        for block in blocks(page):
            if block.language in TRIED and not block.not_executed:
                notebook.execute(block)
                executed += not block.hidden
    finally:
        notebook.close()
    sys.stdout.write(f"executed {executed} blocks\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
