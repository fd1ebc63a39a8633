"""The shape of the tables, as Alembic revisions; `REVISIONS` names them without importing Alembic."""

from typing import Final

REVISIONS: Final = ("0001",)
"""Oldest first. A store at an unknown revision was written by a newer version of Lineshaft."""
VERSION_TABLE: Final = "lineshaft_schema_version"
