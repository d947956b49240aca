"""The app of these tests, in the place where an app's modules are looked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reactor.testing import TestBackend

APP = Path(__file__).parent / "app"


@pytest.fixture(scope="module", autouse=True)
def modules_in_place() -> Iterator[None]:
    """``schema`` and ``app_functions`` are this app's, so that tests import what runs, and other apps' stay as they were."""
    names = ["schema", "app_functions", *(f"app_functions.{file.stem}" for file in sorted((APP / "app_functions").glob("*.py")))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        for name in names:
            patch.setitem(sys.modules, name, importlib.import_module(f"tests.services.app.{name}"))
        yield


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    jobs = importlib.import_module("tests.services.app.app_functions.jobs")
    jobs.effects.clear()
    jobs.gates.clear()
    jobs.hook.clear()


@pytest.fixture
async def t(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with TestBackend(APP) as backend:
        yield backend
