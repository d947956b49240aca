"""Which client is at the other end, as the path and a header of its request tell."""

from __future__ import annotations

import re
from dataclasses import dataclass

from reactor.errors import ProtocolError

__all__ = ["ClientVersion", "client_version"]

_SEMVER = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:[-+].*)?\Z")
_CLIENT = re.compile(r"(?P<name>.+?)-(?P<version>\d+\.\d+\.\d+.*)\Z")


@dataclass(frozen=True, slots=True)
class ClientVersion:
    """Which client is at the other end."""

    name: str
    version: tuple[int, int, int]

    @property
    def takes_chunks(self) -> bool:
        """Whether it puts large transitions together from parts; others drop the connection."""
        return self.name == "npm" and self.version >= (1, 28, 0)


def client_version(path_version: str | None, header: str | None) -> ClientVersion | None:
    """The client, as path and header tell; None when neither does.

    Raises:
        ProtocolError: what they tell is malformed.
    """
    if path_version is not None:
        name, version = "npm", path_version
    elif header is not None:
        found = _CLIENT.match(header)
        if found is None:
            raise ProtocolError(f"InvalidClientVersion: {header[:50]!r} is not name-1.2.3.", code="InvalidClientVersion")
        name, version = found["name"], found["version"]
    else:
        return None
    numbers = _SEMVER.match(version)
    if numbers is None:
        raise ProtocolError(f"InvalidClientVersion: {version[:50]!r} is not a version like 1.2.3.", code="InvalidClientVersion")
    return ClientVersion(name, (int(numbers[1]), int(numbers[2]), int(numbers[3])))
