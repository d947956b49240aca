"""What a caller is told of a failure, in development and in production."""

from __future__ import annotations

from typing import Any

import pytest

from reactor import AppError, ArgumentError, Limits, MutationCtx, ReturnsError
from reactor.testing import TestBackend
from reactor.values import codec
from tests.functions.app.app_functions import failing
from tests.functions.support import APP, call, ranks

pytestmark = pytest.mark.anyio

OPAQUE = "[Request ID: 0123456789abcdef] Server Error"


@pytest.mark.parametrize("production", [False, True])
@pytest.mark.parametrize("data", [None, "text", {"code": 7, "of": [1, None]}, 5.5])
async def test_an_app_errors_data_reaches_the_caller(t: TestBackend, production: bool, data: Any) -> None:
    error = (await call(t, "query", "failing:app_error", production=production, data=data)).error
    assert error is not None and error.data is not None
    assert codec.from_json(error.data) == data
    assert (error.message == OPAQUE) == production


async def test_an_app_error_arrives_as_itself_in_python(t: TestBackend) -> None:
    with pytest.raises(AppError) as raised:
        await t.query(failing.app_error, data={"code": 7})
    assert raised.value.data == {"code": 7}
    with pytest.raises(AppError) as raised:
        await t.action(failing.action_of_app_error)
    assert raised.value.data == {"code": 7}


@pytest.mark.parametrize(("kind", "path"), [("query", "bug"), ("query", "nested_bug"), ("action", "action_of_bug")])
async def test_other_errors_are_told_in_development_and_opaque_in_production(t: TestBackend, kind: Any, path: str) -> None:
    shown = (await call(t, kind, f"failing:{path}")).error
    assert shown is not None and shown.data is None and shown.code == "FunctionError"
    first, second, *frames = shown.message.splitlines()
    assert (first, second) == (OPAQUE, "Uncaught ZeroDivisionError: the password is hunter2")
    assert frames[0].strip().startswith("at bug (app_functions/failing.py:")
    assert all("reactor" not in frame for frame in frames), "only the app's own code is shown"

    hidden = (await call(t, kind, f"failing:{path}", production=True)).error
    assert hidden is not None and (hidden.message, hidden.data) == (OPAQUE, None)


@pytest.mark.parametrize(
    ("kind", "path", "args"),
    [
        ("query", "failing:unknown", {}),
        ("mutation", "failing:takes", {"number": "x"}),
        ("query", "failing:takes", {}),
        ("mutation", "failing:wrong_result", {}),
        ("action", "failing:action_of_bug", {"extra": 1}),
    ],
)
async def test_reactors_own_errors_are_opaque_in_production_too(t: TestBackend, kind: Any, path: str, args: dict[str, Any]) -> None:
    shown = (await call(t, kind, path, **args)).error
    hidden = (await call(t, kind, path, production=True, **args)).error
    assert shown is not None and hidden is not None
    assert shown.message.startswith(f"{OPAQUE}\nUncaught ")
    assert hidden.message == OPAQUE and hidden.code == shown.code


@pytest.mark.parametrize("kind", ["query", "mutation", "action"])
@pytest.mark.parametrize("way", failing.ESCAPES)
async def test_what_would_end_the_server_or_a_wait_is_a_failure_of_its_function(t: TestBackend, kind: Any, way: str) -> None:
    error = (await call(t, kind, f"failing:escape_from_{kind}", way=way)).error
    assert error is not None and error.code == "FunctionError"
    name = {"interrupts": "KeyboardInterrupt", "closes": "GeneratorExit", "awaits_what_is_cancelled": "CancelledError"}.get(
        way, "SystemExit"
    )
    assert f"failing:escape_from_{kind} raised {name}" in error.message and "Return, or raise AppError." in error.message
    assert "(app_functions/failing.py:" in error.message
    assert await ranks(t) == []


async def test_what_is_in_a_group_of_errors_is_told(t: TestBackend) -> None:
    error = (await call(t, "action", "failing:group")).error
    assert error is not None
    lines = error.message.splitlines()
    assert "Uncaught ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)" in lines
    assert {"ZeroDivisionError: the password is hunter2", "AppError: {'code': 7.0}"} <= set(lines)
    assert "at bug (app_functions/failing.py:" in error.message and "at app_error (app_functions/failing.py:" in error.message
    assert (await call(t, "action", "failing:group", production=True)).error.message == OPAQUE  # type: ignore[union-attr]


async def test_a_test_can_be_skipped_in_a_transaction_of_its_own(t: TestBackend) -> None:
    async def skips(ctx: MutationCtx) -> None:
        pytest.skip("for this reason")

    with pytest.raises(pytest.skip.Exception, match="for this reason"):
        await t.run(skips)


async def test_log_lines_do_not_reach_clients_in_production() -> None:
    async with TestBackend(APP) as backend:
        assert (await call(backend, "query", "output:prints", texts=["hello"])).log_lines
        assert (await call(backend, "query", "output:prints", texts=["hello"], production=True)).log_lines == ()


async def test_an_app_errors_data_must_be_a_value(t: TestBackend) -> None:
    error = (await call(t, "query", "failing:bad_data")).error
    assert error is not None and error.code == "InvalidErrorData" and error.data is None
    assert "AppError was raised with data that is not a value" in error.message


async def test_a_result_that_does_not_fit_undoes_the_mutation(t: TestBackend) -> None:
    with pytest.raises(ReturnsError, match="failing:wrong_result"):
        await t.mutation(failing.wrong_result)
    assert await ranks(t) == []


async def test_a_nested_result_that_does_not_fit_undoes_the_nested_mutation_alone(t: TestBackend) -> None:
    assert await t.mutation(failing.catches_wrong_result) == "ReturnsError"
    assert await ranks(t) == [0]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({}, "number"),
        ({"number": "1"}, "number"),
        ({"number": True}, "number"),
        ({"number": None}, "number"),
        ({"number": 1, "color": "red"}, "color"),
        ({"number": 1, "names": ["Ada", 5]}, "names[1]"),
        ({"number": 1, "names": "Ada"}, "names"),
    ],
)
async def test_arguments_that_do_not_fit_are_named_and_the_function_does_not_run(t: TestBackend, args: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match="failing:takes") as refused:
        await t.mutation("failing:takes", **args)
    assert text in refused.value.message
    assert await ranks(t) == []


async def test_optional_arguments_may_be_left_out_and_be_null(t: TestBackend) -> None:
    await t.mutation(failing.takes, 1)
    await t.mutation(failing.takes, number=2, names=None)
    await t.mutation("failing:takes", number=3, names=["Ada"])
    assert await ranks(t) == [1, 2, 3]
    with pytest.raises(ArgumentError, match="takes 2 arguments, 3 were given"):
        await t.mutation(failing.takes, 1, None, 3)  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="'number' twice"):
        await t.mutation(failing.takes, 1, number=1)  # type: ignore[misc]


@pytest.mark.parametrize("limit", [100, 1000])
async def test_an_errors_message_is_bounded(limit: int) -> None:
    async with TestBackend(APP, limits=Limits(error_message_chars=limit)) as t:
        error = (await call(t, "query", "failing:app_error", data="x" * 5000)).error
    assert error is not None and len(error.message) <= limit + len(OPAQUE)
