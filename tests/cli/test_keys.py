"""`reactor keys`: admin keys made, listed and revoked from the terminal, with or without a server."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Reactor
from tests.support.server import Server


@pytest.mark.usefixtures("running")
def test_keys_are_made_listed_and_revoked(reactor: Reactor) -> None:
    made = reactor("keys", "create", "deploy")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("deploy|")
    again = reactor("keys", "create", "deploy")
    assert again.returncode == 1 and "a key named 'deploy' already" in again.stderr
    (listed,) = reactor("keys", "list").stdout.splitlines()
    assert listed.endswith(" UTC  deploy")
    assert reactor("keys", "revoke", "deploy").returncode == 0
    assert reactor("keys", "list").stdout == ""
    missing = reactor("keys", "revoke", "deploy")
    assert missing.returncode == 1 and "no key named 'deploy'" in missing.stderr


def test_keys_need_no_app_that_loads(reactor: Reactor, app: Path) -> None:
    (app / "schema.py").write_text("this is no Python")
    made = reactor("keys", "create", "deploy")
    assert made.returncode == 0 and made.stdout.startswith("deploy|"), made.stderr
    assert reactor("keys", "list").stdout.endswith(" UTC  deploy\n")


def test_a_key_serves_after_a_restart_and_until_it_is_revoked(reactor: Reactor, server: Server, app: Path) -> None:
    key = reactor("keys", "create", "deploy").stdout.strip()

    def count() -> httpx.Response:
        body = {"path": "notes:count", "args": {}, "format": "json"}
        return httpx.post(
            f"{server.url}/api/function", json=body, headers={"authorization": f"Convex {key}"}, trust_env=False, verify=False
        )

    with server:
        assert count().json()["value"] == 0
        assert reactor("keys", "revoke", "deploy").returncode == 0
        assert count().status_code == 403
    assert key.partition("|")[2].encode() not in (app / ".reactor" / "reactor.db").read_bytes()
