"""What every test shares."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("long" if os.environ.get("REACTOR_TEST_LONG") else "default")


@pytest.fixture
def anyio_backend() -> str:
    """Reactor is for asyncio."""
    return "asyncio"
