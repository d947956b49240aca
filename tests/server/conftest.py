"""The app of these tests, as TestBackend builds it, with an admin key that is known."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from reactor.testing import TestBackend
from tests.server import gates
from tests.server.support import APP, SmallBackend


def _app_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in ("schema", "app_functions")]


@pytest.fixture(scope="module", autouse=True)
def no_other_app() -> Iterator[None]:
    """``schema`` and ``app_functions`` are looked for anew, and other apps' put back in their place at the end."""
    before, path = {name: sys.modules[name] for name in _app_modules()}, list(sys.path)
    for name in before:
        del sys.modules[name]
    yield
    for name in _app_modules():
        del sys.modules[name]
    sys.modules.update(before)
    sys.path[:] = path


@pytest.fixture(autouse=True)
def no_gates() -> Iterator[None]:
    yield
    gates.forget()


@pytest.fixture
async def t(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with SmallBackend(APP) as backend:
        yield backend
