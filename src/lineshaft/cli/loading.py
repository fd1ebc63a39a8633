"""From MODULE:APP to the App, as `python -m` would import the module: from the current directory first."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from lineshaft.cli.failing import BAD_INPUT, CommandFailed

if TYPE_CHECKING:
    from lineshaft.app import App


def load(target: str) -> App:
    """Import the module and take the App from it. Raises `CommandFailed`."""
    from lineshaft.app import App

    module_name, _, attribute = target.partition(":")
    if not module_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise _bad(
            f"{target!r} is not MODULE:APP.", "Write the dotted name of a module, such as shop.tasks:app."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _imported(module_name)
    if not attribute:
        apps = [name for name, value in vars(module).items() if isinstance(value, App)]
        if len(apps) != 1:
            has = f"has {len(apps)} Apps ({', '.join(apps)})" if apps else "has no App"
            raise _bad(f"Module {module_name!r} {has}.", f"Say which: {module_name}:NAME.")
        attribute = apps[0]
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name, value in vars(module).items() if isinstance(value, App)]
            hint = f"It has {', '.join(f'{module_name}:{name}' for name in names)}." if names else ""
            raise _bad(f"Module {module_name!r} has no {attribute!r}.", hint or "Declare one: app = App(…).")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise _bad(
            f"{target} is {_a(type(found).__name__)}, not an App.", "Name the object that App(…) made."
        )
    return found


def _imported(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise _bad(
                f"There is no module {missing!r} in {Path.cwd()} or among the installed packages.",
                "Run this where the module lies, or install it.",
            ) from error
        raise _broken(name, error) from error
    except SystemExit as error:
        raise _bad(
            f"Module {name!r} ended the program while it was imported (exit code {error.code}).",
            'Put what it does behind `if __name__ == "__main__":`.',
        ) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> CommandFailed:
    """The module raised: show the frames that are the user's."""
    from lineshaft.core.errors import LineshaftError

    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not frame.filename.startswith(str(Path(__file__).parent))
    ]
    package = str(Path(__file__).parents[1])
    own = [frame for frame in frames if not frame.filename.startswith((package, "<"))] or frames
    detail = "".join(traceback.format_list(own[-3:]))
    if isinstance(error, SyntaxError):
        detail = "".join(traceback.format_exception_only(error)[:-1])
    if isinstance(error, LineshaftError):
        return CommandFailed(error.message, hint=error.hint, exit_code=BAD_INPUT, detail=detail)
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be printed)"
    return CommandFailed(
        f"Module {name!r} raised {type(error).__name__} while it was imported: {message}".rstrip(": .") + ".",
        exit_code=BAD_INPUT,
        detail=detail,
    )


def _bad(message: str, hint: str) -> CommandFailed:
    return CommandFailed(message, hint=hint, exit_code=BAD_INPUT)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiouAEIOU" else f"a {noun}"
