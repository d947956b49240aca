"""What becomes of nodes that end."""

from __future__ import annotations

import io
import signal

import pytest

from reactor.server import supervisor
from reactor.server.logs import Logs

pytestmark = pytest.mark.sqlite_only("processes, whatever the store")

KILLED = -int(signal.SIGKILL)


@pytest.mark.parametrize(
    ("nodes", "status"),
    [
        pytest.param([(False, 1)], 1, id="one that cannot start"),
        pytest.param([(False, KILLED), (False, 1)], 1, id="one that dies before it serves, and then cannot start"),
        pytest.param([(True, KILLED), (False, 1), (False, 1), (True, 0)], 0, id="one that served, and finds no database for a while"),
    ],
)
def test_a_node_is_started_again_once_it_has_served(monkeypatch: pytest.MonkeyPatch, nodes: list[tuple[bool, int]], status: int) -> None:
    ended = iter(nodes)
    monkeypatch.setattr(supervisor._Supervisor, "_node", lambda *_: next(ended))
    monkeypatch.setattr(supervisor, "RESTART_S", 0.0)
    logs = Logs(io.TextIOWrapper(io.BytesIO()), machine=True)
    assert supervisor._Supervisor([], logs).run() == status
    assert list(ended) == []
    logs.close()
