"""The settings of a command. Imports no server, as the commands that a running one answers need none."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from reactor.errors import ReactorError
from reactor.server.settings import Settings

__all__ = ["settings"]


def settings(**options: Any) -> Settings:
    """Settings from the environment, and from those options that were given.

    Raises:
        ReactorError: one cannot be used; says which.
    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        raise ReactorError(f"REACTOR_{name.upper()}: {first['msg']}, not {first['input']!r}.", code="BadSetting") from None
