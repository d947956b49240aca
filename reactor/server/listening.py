"""The sockets that a server listens on. Imports no server: of two processes the supervisor has them, and it starts first."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from reactor.errors import ReactorError
from reactor.server.beside import address_file
from reactor.server.settings import Settings

__all__ = ["address_left", "bind", "bind_all", "url_of"]


def bind(host: str, port: int) -> socket.socket:
    """A socket at this address, not listening yet.

    Args:
        port: 0 for any that is free.

    Raises:
        ReactorError: it cannot be had; says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ReactorError(f"The host {host!r} is not known ({error.strerror}). Choose another with --host.", code="BadHost") from None
    made = socket.socket(family, kind, protocol)
    try:
        # The connections of a server just stopped linger: without this its port could not be had for a minute.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        # Two servers may bind one port as long as neither listens, so this tells.
        made.listen(2048)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise ReactorError(f"Port {port} is in use. Stop what uses it, or choose another with --port.", code="PortInUse") from None
        raise ReactorError(
            f"Cannot listen on {host}:{port} ({error.strerror}). Choose others with --host and --port.", code="BadAddress"
        ) from None
    return made


def bind_all(settings: Settings) -> list[socket.socket]:
    """The sockets to serve: of the port, and of the second one for HTTP actions if there is to be one.

    Raises:
        ReactorError: as ``bind``.
    """
    ports = [settings.port] if settings.site_port is None else [settings.port, settings.site_port]
    return [bind(settings.host, port) for port in ports]


@contextlib.contextmanager
def address_left(database: Path, url: str) -> Iterator[None]:
    """Inside, the database's address file says where its server is."""
    path = address_file(database)
    path.write_text(f"{url}\n", encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def url_of(listening: socket.socket) -> str:
    """Where a client on this machine reaches the socket."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - read, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
