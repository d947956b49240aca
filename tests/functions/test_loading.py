"""An app that many backends of one process serve is made of its modules once."""

from __future__ import annotations

import sys

import pytest

from reactor.functions.registry import imported_app
from tests.functions.app import app_functions
from tests.functions.app.app_functions import clocks, items
from tests.functions.support import APP

pytestmark = pytest.mark.sqlite_only("modules, of which no store hears")


def test_it_is_the_same_while_nothing_in_its_modules_has_changed() -> None:
    assert imported_app(APP) is imported_app(APP)


def test_it_is_made_anew_when_a_module_has_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    before = imported_app(APP)
    monkeypatch.delattr(items, "ranks")
    after = imported_app(APP)
    assert {function.path for function in before.registry} - {function.path for function in after.registry} == {"items:ranks"}


def test_it_is_made_anew_when_a_module_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = imported_app(APP)
    monkeypatch.setattr(app_functions, "clocks", clocks)  # which it is again at the end
    monkeypatch.delitem(sys.modules, "app_functions.clocks")
    after = imported_app(APP)
    assert after is not before
    assert after.modules["app_functions.clocks"] is not before.modules["app_functions.clocks"]


def test_it_stays_the_first_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    imported_app(APP)
    monkeypatch.setattr(sys, "path", ["elsewhere", *sys.path])
    imported_app(APP)
    assert sys.path[0] == str(APP)
