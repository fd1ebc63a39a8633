"""From the address of a store to the open store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lineshaft.core.errors import InvalidSetting

if TYPE_CHECKING:
    from lineshaft.store.port import Store

DEFAULT = "sqlite:///lineshaft.db"


def sqlite_path(address: str) -> Path:
    """The file that an address names: three slashes for a relative path, four for an absolute one."""
    prefix = "sqlite:///"
    if not address.startswith(prefix):
        raise InvalidSetting(
            f"{address!r} is not the address of a store.",
            hint="Write sqlite:///file.db for a file here, or sqlite:////directory/file.db.",
        )
    name = address.removeprefix(prefix)
    if not name or name.startswith(":memory:") or "?" in name:
        raise InvalidSetting(
            f"{address!r} names no file; a store has to survive its process.",
            hint="Write sqlite:///file.db for a file here, or sqlite:////directory/file.db.",
        )
    return Path(name)


def open_store(address: str) -> Store:
    """Open the store at an address; a new SQLite file gets its tables."""
    path = sqlite_path(address)
    # Imported when used, so that declaring an app stays light.
    from lineshaft.store.sqlite.store import SqliteStore

    return SqliteStore(path)
