"""Type checks of the apps that tests write."""

from __future__ import annotations

import os

from tests.support.server import ROOT

__all__ = ["TYPE_CACHE"]

#: mypy's, kept from one app to the next, whose libraries are the same; workers do not share it.
TYPE_CACHE = str(ROOT / ".mypy_cache" / f"apps-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}")
