"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Store = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="LINESHAFT_STORE",
        show_envvar=False,
        help="Address of the store. Default: LINESHAFT_STORE, or sqlite:///lineshaft.db.",
    ),
]
DEFAULT_STORE = "sqlite:///lineshaft.db"
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.", show_default=False)]
ModuleApp = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:APP", help="Where the App is, such as shop.tasks:app.", show_default=False
    ),
]
