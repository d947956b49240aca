"""What functions print and log becomes their log lines."""

from __future__ import annotations

import logging

import pytest

from reactor import Limits
from reactor.testing import TestBackend
from tests.functions.support import APP, call

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what is printed, whatever the store")]


async def test_lines_carry_their_level() -> None:
    async with TestBackend(APP) as t:
        outcome = await call(t, "query", "output:every_level")
    assert outcome.log_lines == (
        "[LOG] 'one 2'",
        "[ERROR] 'to stderr'",
        "[DEBUG] 'debug'",
        "[INFO] 'info of Ada'",
        "[WARN] 'warning'",
        "[ERROR] 'error'",
        "[ERROR] 'critical'",
        "[LOG] 'two'",
        "[LOG] 'lines'",
        "[LOG] 'no end'",
    )


async def test_a_function_that_fails_keeps_its_lines_and_those_of_what_it_called() -> None:
    async with TestBackend(APP) as t:
        assert (await call(t, "query", "output:prints_and_fails")).log_lines == ("[LOG] 'before'",)


async def test_a_logged_exception_shows_what_was_raised() -> None:
    async with TestBackend(APP) as t:
        (line,) = (await call(t, "query", "output:logs_an_exception")).log_lines
    assert line.startswith("[ERROR] 'caught") and "ZeroDivisionError: by zero" in line


async def test_lines_are_bounded_in_number_and_length() -> None:
    async with TestBackend(APP, limits=Limits(log_lines=4, log_line_chars=10)) as t:
        few = await call(t, "query", "output:prints", texts=["1", "2", "3"])
        many = await call(t, "query", "output:prints", texts=["1", "2", "3", "4", "5"])
        long = await call(t, "query", "output:prints", texts=["y" * 8, "x" * 5000])
    assert few.log_lines == ("[LOG] '1'", "[LOG] '2'", "[LOG] '3'")
    assert many.log_lines[:3] == few.log_lines
    assert many.log_lines[3:] == ("[WARN] Log overflow: a function logs at most 4 lines; the rest was dropped.",)
    assert long.log_lines == ("[LOG] 'yyyyyyyy'", "[LOG] 'xxxxxxxxx (truncated due to length)")


async def test_an_action_and_the_query_that_it_calls_have_lines_of_their_own() -> None:
    async with TestBackend(APP) as t:
        assert (await call(t, "action", "output:acts")).log_lines == ("[LOG] 'acting'",)


async def test_what_is_printed_outside_of_functions_goes_where_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    async with TestBackend(APP) as t:
        print("outside")
        outcome = await call(t, "query", "output:prints", texts=["inside"])
        logging.getLogger("elsewhere").warning("not a function's")
    assert outcome.log_lines == ("[LOG] 'inside'",)
    assert "outside" in capsys.readouterr().out and "inside" not in capsys.readouterr().out
