"""What a batch task returns for an item that failed."""

from __future__ import annotations


class Failed:
    """Stands in a batch's list of results for an item that failed, while the others succeed."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | str) -> None:
        self.error = error if isinstance(error, BaseException) else RuntimeError(error)

    def __repr__(self) -> str:
        return f"Failed({self.error!r})"
