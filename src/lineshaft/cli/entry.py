"""The tree of commands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import os
import sys

import typer

from lineshaft.cli import bench, explain, failing, queues, runs, serve, stores, workers
from lineshaft.core.errors import LineshaftError

app = typer.Typer(
    name="lineshaft",
    help="One durable engine under a Python backend: tasks that survive every process.",
    epilog="Exit codes: 0 done · 1 failed · 2 bad input · 3 not found · 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
WORK, LOOK, STORE = "Execute work", "Look and act", "The store"

app.command("run", rich_help_panel=WORK)(serve.run)
app.command("worker", rich_help_panel=WORK)(serve.worker)
app.add_typer(runs.app, name="runs", rich_help_panel=LOOK)
app.command("why", rich_help_panel=LOOK)(runs.why)
app.add_typer(queues.app, name="queues", rich_help_panel=LOOK)
app.command("workers", rich_help_panel=LOOK)(workers.workers)
app.command("explain", rich_help_panel=LOOK)(explain.explain)
app.command("doctor", rich_help_panel=STORE)(stores.doctor)
app.command("migrate", rich_help_panel=STORE)(stores.migrate)
app.command("backup", rich_help_panel=STORE)(stores.backup)
app.command("restore", rich_help_panel=STORE)(stores.restore)
app.command("bench", rich_help_panel=STORE)(bench.bench)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"lineshaft {version('lineshaft')}")
        raise typer.Exit


@app.callback()
def _top(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def run() -> int:
    """Run the command that sys.argv asks for; the exit code."""
    try:
        return _run()
    except BrokenPipeError:
        # Whoever read our output (head, less) has left; that is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run() -> int:
    try:
        code = app(prog_name="lineshaft", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        return _misused(error)
    except failing.CommandFailed as error:
        failing.show(error.message, error.hint, error.detail)
        return error.exit_code
    except LineshaftError as error:
        failing.show(error.message, error.hint)
        return failing.exit_code_of(error)
    except (KeyboardInterrupt, typer.Abort):
        failing.show("interrupted.")
        return failing.INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        failing.show(f"{where}{error.strerror or error}.")
        return failing.FAILED
    except Exception as error:
        if os.environ.get("LINESHAFT_DEBUG"):
            raise
        failing.show(
            f"unexpected {type(error).__name__}: {error}.",
            "Set LINESHAFT_DEBUG=1 to see where it comes from.",
        )
        return failing.FAILED


def _misused(error: typer.TyperException) -> int:
    """The command line cannot be understood."""
    message = error.format_message().strip()
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        # A group without a command: Typer gives its help as the message.
        if message:
            typer.echo(message)
        return failing.BAD_INPUT
    path = context.command_path if context is not None else "lineshaft"
    if not message.endswith((".", "?")):
        message += "."
    failing.show(message, f"See `{path} --help`.")
    return failing.BAD_INPUT
