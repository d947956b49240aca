"""The store of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.engine.support import GatedStore, opened
from tests.support.databases import Databases


@pytest.fixture
async def store(anyio_backend: str, databases: Databases) -> AsyncIterator[GatedStore]:
    async with opened(databases) as store:
        yield store
