"""The app of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reactor.testing import TestBackend
from tests.server.conftest import no_other_app

__all__ = ["no_other_app"]


@pytest.fixture
async def t(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with TestBackend(Path(__file__).parent / "app", now=datetime(2026, 1, 1, tzinfo=UTC)) as backend:
        yield backend
