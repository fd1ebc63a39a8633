"""Fixtures that several of these modules share."""

from __future__ import annotations

from tests.commands import here, lineshaft

__all__ = ["here", "lineshaft"]
