"""Ports for servers that tests start, kill and start again."""

from __future__ import annotations

import socket

__all__ = ["reserve_port"]

_reserved: list[socket.socket] = []


def reserve_port() -> int:
    """A port that nothing listens on, and that nobody but the caller gets until this process ends.

    A socket stays bound to it and never listens. The kernel then takes the port neither for another socket that asks for any nor as the
    source of an outgoing connection, also while its server is down: either would have the server find it in use. Who names the port and
    sets SO_REUSEADDR, as servers do, can listen on it as if that socket were not there.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _reserved.append(held)
    return int(held.getsockname()[1])
