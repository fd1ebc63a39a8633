"""Backups: copying a store while it is in use, and putting a copy in place of one that is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lineshaft.control.desk import Desk, use_case
from lineshaft.store.address import sqlite_path

if TYPE_CHECKING:
    from lineshaft.store.sqlite.backups import Restored


@use_case("stores.backup")
async def backup(desk: Desk, target: Path, progress: Callable[[int, int], None]) -> int:
    """Copy the whole store into a new file; its size in bytes. `progress` hears of pages done and in all."""
    await desk.store.backup(str(target), progress)
    return os.stat(target).st_size


def restore(source: Path, address: str) -> Restored:
    """Put a backup at an address where nothing is. Raises `StoreError` where something is."""
    from lineshaft.store.sqlite import backups

    return backups.restore(source, sqlite_path(address).absolute())
