"""How a command fails: one line on stderr that says what happened and what to do, and an exit code for scripts."""

from __future__ import annotations

from lineshaft.core.errors import (
    DeclarationError,
    InvalidArguments,
    InvalidSetting,
    LineshaftError,
    NotAStore,
    RunNotFound,
)

FAILED = 1
"""What was asked could not be done, or `doctor` found something wrong."""
BAD_INPUT = 2
"""The command line, or what it names, is wrong."""
NOT_FOUND = 3
"""There is no such run, queue or task."""
INTERRUPTED = 130
"""Ctrl-C ended it."""


class CommandFailed(LineshaftError):
    """A command ends with this exit code."""

    code = "command-failed"

    def __init__(self, message: str, *, hint: str = "", exit_code: int = FAILED, detail: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.detail = detail
        """Lines to show above the error, such as where in the user's module it happened."""


def exit_code_of(error: LineshaftError) -> int:
    """The exit code for an error."""
    if isinstance(error, CommandFailed):
        return error.exit_code
    if isinstance(error, RunNotFound):
        return NOT_FOUND
    if isinstance(error, InvalidSetting | InvalidArguments | DeclarationError | NotAStore):
        return BAD_INPUT
    return FAILED


def show(message: str, hint: str = "", detail: str = "") -> None:
    """Print an error, in red where that can be seen."""
    from lineshaft.cli.printing import stderr

    console = stderr()
    if detail:
        console.print(detail.rstrip(), style="dim", markup=False, highlight=False, soft_wrap=True)
    text = " ".join(f"{message} {hint}".split())
    console.print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
