"""A process of load returns what it measured, or fails with what went wrong in it."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.server import ROOT


@pytest.fixture(autouse=True)
def benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


async def double(load: int) -> int:
    return load * 2


async def lose_a_connection(load: int) -> int:
    def lost() -> None:
        raise RuntimeError("the server closed a connection")

    asyncio.get_running_loop().call_soon(lost)
    await asyncio.sleep(60)
    return load


def test_it_returns_what_was_measured() -> None:
    from generator import in_a_process

    assert in_a_process(double, 21, sockets=1) == 42


def test_an_error_in_a_connection_ends_it(capfd: pytest.CaptureFixture[str]) -> None:
    from generator import in_a_process

    with pytest.raises(RuntimeError, match="load failed"):
        in_a_process(lose_a_connection, 1, sockets=1)
    assert "the server closed a connection" in capfd.readouterr().err
