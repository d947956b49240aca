"""Environment variables over the admin's HTTP API."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from reactor.testing import TestBackend
from tests.server.support import ADMIN_KEY, post

pytestmark = pytest.mark.anyio

ADMIN = f"Convex {ADMIN_KEY}"
UPDATE, LIST = "/api/update_environment_variables", "/api/list_environment_variables"


async def listed(t: TestBackend) -> Any:
    return (await t.fetch(LIST, headers={"authorization": ADMIN})).json()


async def test_variables_are_set_listed_and_removed(t: TestBackend) -> None:
    assert await listed(t) == {"environmentVariables": {}}
    changes = [{"name": "A", "value": "1"}, {"name": "B", "value": ""}, {"name": "C", "value": None}]
    answer = await post(t, UPDATE, {"changes": changes}, authorization=ADMIN)
    assert (answer.status_code, answer.content) == (200, b"null")
    assert await listed(t) == {"environmentVariables": {"A": "1", "B": ""}}
    await post(t, UPDATE, {"changes": [{"name": "A", "value": None}]}, authorization=ADMIN)
    assert await listed(t) == {"environmentVariables": {"B": ""}}


async def test_only_an_admin_may(t: TestBackend) -> None:
    for headers, status, code in [({}, 403, "BadDeployKey"), ({"authorization": "Convex test|1"}, 403, "BadDeployKey")]:
        answers = [await post(t, UPDATE, {"changes": []}, **headers), await t.fetch(LIST, headers=headers)]
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(status, code)] * 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "BadJsonBody"),
        ({"changes": {}}, "BadJsonBody"),
        ({"changes": ["A"]}, "BadJsonBody"),
        ({"changes": [{"value": "1"}]}, "BadJsonBody"),
        ({"changes": [{"name": 1, "value": "1"}]}, "BadJsonBody"),
        ({"changes": [{"name": "A"}]}, "BadJsonBody"),
        ({"changes": [{"name": "A", "value": 1}]}, "BadJsonBody"),
        (b"{", "BadJsonBody"),
        (b'{"changes": [{"name": "A", "value": "\\ud800"}]}', "BadJsonBody"),
        ({"changes": [{"name": "1A", "value": "1"}]}, "EnvironmentVariableNameInvalid"),
        ({"changes": [{"name": "A" * 257, "value": "1"}]}, "EnvironmentVariableNameTooLong"),
        ({"changes": [{"name": "A", "value": "x" * 8193}]}, "EnvironmentVariableValueTooLarge"),
        ({"changes": [{"name": f"A{at}", "value": "1"} for at in range(513)]}, "EnvVarLimitMet"),
        ({"changes": [{"name": f"A{at}", "value": "x" * 8000} for at in range(66)]}, "EnvVarTotalSizeLimitMet"),
        ({"changes": [{"name": "CONVEX_SITE_URL", "value": "x"}]}, "EnvVarNameForbidden"),
    ],
)
async def test_what_cannot_be_is_a_bad_request_that_changes_nothing(t: TestBackend, body: Any, code: str) -> None:
    answer = await post(t, UPDATE, body, authorization=ADMIN)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert await listed(t) == {"environmentVariables": {}}


async def test_values_are_never_logged(t: TestBackend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await post(t, UPDATE, {"changes": [{"name": "A", "value": "s3cret"}]}, authorization=ADMIN)
    await post(t, UPDATE, {"changes": [{"name": "A", "value": "s3cret"}, {"name": "1", "value": "s3cret"}]}, authorization=ADMIN)
    await listed(t)
    assert "s3cret" not in caplog.text


async def test_tools_ask_for_them_as_queries_that_only_admins_may_call(t: TestBackend) -> None:
    await t.set_env({"A": "1"})
    for path, args, value in [
        ("_system/cli/queryEnvironmentVariables", {}, [{"name": "A", "value": "1"}]),
        ("_system/cli/queryEnvironmentVariables:get", {"name": "A"}, {"name": "A", "value": "1"}),
        ("_system/cli/queryEnvironmentVariables:get", {"name": "B"}, None),
    ]:
        body = {"path": path, "args": args}
        assert (await post(t, "/api/query", body, authorization=ADMIN)).json() == {"status": "success", "value": value}
        refused = (await post(t, "/api/query", body)).json()
        assert refused["status"] == "error" and "Could not find public function" in refused["errorMessage"]
