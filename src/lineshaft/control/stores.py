"""Stores as such: finding, opening and migrating them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lineshaft.core.errors import InvalidSetting
from lineshaft.store.address import DEFAULT, open_store, sqlite_path
from lineshaft.store.port import Store


@dataclass(frozen=True, slots=True)
class Migrated:
    """From which revision to which a store was brought; `before` is None for one that had no tables of ours."""

    address: str
    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after


def chosen(address: str | None) -> str:
    """The address given, or what LINESHAFT_STORE says, or the default."""
    return address or os.environ.get("LINESHAFT_STORE") or DEFAULT


def require_existing(address: str) -> None:
    """Raise `InvalidSetting` unless there is something at an address."""
    path = sqlite_path(address)
    # An empty file is one that something else made by mistake: opening it would make a store of it.
    missing = "no file" if not path.exists() else "an empty file" if path.stat().st_size == 0 else ""
    if missing:
        raise InvalidSetting(
            f"There is no store at {address} ({missing} {path.absolute()}).",
            hint="Give --store or LINESHAFT_STORE, or make one with `lineshaft migrate`.",
        )


def open_existing(address: str) -> Store:
    """Open a store; unlike `open_store`, never make a new one where there is none."""
    require_existing(address)
    return open_store(address)


def migrate(address: str) -> Migrated:
    """Make our tables, in a new file or beside those of the user, or bring old ones to this version."""
    from lineshaft.store.sqlite import schema
    from lineshaft.store.sqlite.files import StoreFiles

    files = StoreFiles(sqlite_path(address))
    try:
        before, after = schema.migrate(files)
    finally:
        files.close()
    return Migrated(f"sqlite:///{files.path}", before, after)
