"""The files that a server leaves beside its database, for commands that ask it. Imports nothing, so that those start at once."""

from __future__ import annotations

from pathlib import Path

__all__ = ["address_file", "key_file"]


def address_file(database: Path) -> Path:
    """Where a running server of a database leaves its address."""
    return database.with_name(f"{database.name}-server")


def key_file(database: Path) -> Path:
    """Where the admin key of a database is kept."""
    return database.with_name(f"{database.name}-admin-key")
