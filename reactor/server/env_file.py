"""``.env.local``: environment variables of a development server, in a file beside ``schema.py``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from reactor.errors import EnvironmentVariableError
from reactor.functions.environment import BUILT_IN

__all__ = ["ENV_FILE", "EnvFile"]

ENV_FILE = ".env.local"


class EnvFile:
    """The file of an app's folder. What it says is set in the database when the server starts and whenever the file is saved.

    Args:
        folder: of the app.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ENV_FILE
        self._known: set[str] = set()

    def changes(self) -> dict[str, str | None]:
        """The variables that it sets, and None for those taken out of it since the changes that were ``done`` last.

        Raises:
            EnvironmentVariableError: it cannot be read.
        """
        try:
            found = dotenv_values(self.path, interpolate=False, encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EnvironmentVariableError(f"{self.path}: {error}. Write lines of NAME=value in UTF-8.") from None
        # What front ends call the server's address stands in the same file. They read it there themselves.
        set_here = {name: value for name, value in found.items() if value is not None and name not in BUILT_IN}
        return {**set_here, **dict.fromkeys(self._known - set_here.keys())}

    def done(self, changes: Mapping[str, str | None]) -> None:
        """These changes are in the database."""
        self._known = {name for name, value in changes.items() if value is not None}
