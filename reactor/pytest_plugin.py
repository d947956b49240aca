"""The pytest plugin: the fixture ``backend``. Imports nothing heavy before a test asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reactor.testing import TestBackend

__all__ = ["backend", "backend_env"]


@pytest.fixture
def backend_env() -> dict[str, str]:
    """Environment variables of ``backend``. A fixture of this name in your conftest.py sets others than none."""
    return {}


@pytest.fixture
async def backend(anyio_backend: Any, request: pytest.FixtureRequest, backend_env: dict[str, str]) -> AsyncIterator[TestBackend]:
    """A ``TestBackend`` on the app in pytest's root folder. Needs anyio's pytest plugin, and asyncio as its backend."""
    from reactor.testing import TestBackend

    async with TestBackend(request.config.rootpath, env=backend_env) as t:
        yield t
