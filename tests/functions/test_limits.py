"""Every limit of a function: which code it has, what it advises, and that nothing was written."""

from __future__ import annotations

from typing import Any

import pytest

from reactor import Limits, SchemaError
from reactor.functions.outcome import ErrorReport
from reactor.testing import TestBackend
from tests.functions.app.schema import Blob
from tests.functions.support import APP, call, fill

pytestmark = pytest.mark.anyio

SMALL = Limits(
    documents_read=10,
    bytes_read=2000,
    index_ranges_read=5,
    documents_written=10,
    bytes_written=2000,
    document_size_bytes=500,
    arguments_size_bytes=1000,
    result_size_bytes=1000,
)


async def refusal(t: TestBackend, kind: Any, path: str, **args: Any) -> ErrorReport:
    error = (await call(t, kind, f"limits:{path}", **args)).error
    assert error is not None, "it was not refused"
    return error


@pytest.mark.parametrize("path", ["scans", "filters", "iterates", "counts", "takes"])
async def test_documents_read_are_limited_in_every_kind_of_read(path: str) -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        await fill(t, "a", *range(10))
        assert (await call(t, "query", f"limits:{path}")).ok
        await fill(t, "a", 10)
        error = await refusal(t, "query", path)
    assert error.code == "TooManyDocumentsRead"
    assert "at most 10 documents" in error.message and "Use an index, take(n) or pagination." in error.message


async def test_a_function_that_catches_a_limit_meets_it_again() -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        await fill(t, "a", *range(10))
        await fill(t, "a", 10)
        assert await t.query("limits:goes_on") == ["TooManyDocumentsRead"] * 4


async def test_bytes_read_are_limited() -> None:
    async with TestBackend(APP, limits=Limits(bytes_read=2000)) as t:
        await fill(t, "a", *range(10))
        assert (await call(t, "query", "limits:scans")).ok
        await fill(t, "a", *range(20))
        error = await refusal(t, "query", "scans")
    assert error.code == "TooManyBytesRead"
    assert "at most 2000 bytes" in error.message and "pagination" in error.message


async def test_index_ranges_read_are_limited() -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        assert (await call(t, "query", "limits:asks", times=5)).ok
        error = await refusal(t, "query", "asks", times=6)
    assert error.code == "TooManyReads"
    assert "at most 5 index ranges" in error.message and "Read ranges instead of single documents" in error.message


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ({"documents": 11}, "TooManyWrites", "at most 10 documents"),
        ({"documents": 10, "size": 150}, "TooManyBytesWritten", "at most 2000 bytes"),
    ],
)
async def test_what_a_mutation_writes_is_limited(args: dict[str, Any], code: str, text: str) -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        assert (await call(t, "mutation", "limits:writes", documents=10)).ok
        head = t._engine.head_ts
        error = await refusal(t, "mutation", "writes", **args)
        assert t._engine.head_ts == head
    assert error.code == code
    assert text in error.message and "Split the work into several mutations." in error.message


async def test_what_a_nested_mutation_wrote_before_it_failed_does_not_count() -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        assert await t.mutation("limits:writes_nested", each=8) == ["undone"] * 3


async def test_a_documents_size_is_limited() -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        # By the size formula: the object 2, the field's name and value 4 + 1 + 2, the system fields 61.
        assert (await call(t, "mutation", "limits:writes", documents=1, size=500 - 70)).ok
        error = await refusal(t, "mutation", "writes", documents=1, size=500 - 69)
    assert error.code == "DocumentTooLarge"
    assert "insert into table 'blobs': the document has 501 bytes, at most 500" in error.message
    assert "several documents, or in files" in error.message


async def test_a_documents_nesting_is_limited(t: TestBackend) -> None:
    assert (await call(t, "mutation", "limits:nests", depth=15)).ok
    error = await refusal(t, "mutation", "nests", depth=16)
    assert error.code == "TooNestedError" and "table 'blobs'" in error.message and "At most 16 levels" in error.message


async def test_the_nesting_of_arguments_and_results_is_limited(t: TestBackend) -> None:
    assert (await call(t, "query", "limits:returns_deep", depth=64)).ok
    assert "nested too deeply" in (await refusal(t, "query", "returns_deep", depth=65)).message
    runner = t._runner
    for depth, ok in ((63, True), (66, False), (100_000, False)):
        text = b'{"value":' + b"[" * depth + b"]" * depth + b"}"
        outcome = await runner.query("limits:echo", text, t._caller())
        assert outcome.ok == ok, depth


@pytest.mark.parametrize(("size", "ok"), [(900, True), (990, False)])
async def test_the_size_of_arguments_is_limited(size: int, ok: bool) -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        outcome = await call(t, "query", "limits:echo", value="x" * size)
    assert outcome.ok == ok
    if outcome.error is not None:
        assert outcome.error.code == "ArgumentsTooLarge"
        assert "bytes of arguments, at most 1000 fit. Send less" in outcome.error.message


async def test_the_size_of_a_result_is_limited() -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        assert (await call(t, "query", "failing:repeats", text="x", times=990)).ok
        error = (await call(t, "query", "failing:repeats", text="x", times=1001)).error
    assert error is not None and error.code == "ResultTooLarge"
    assert "failing:repeats" in error.message and "at most 1000 fit. Return less, or page by page." in error.message


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        ([0.0] * 8193, "ArrayTooLong", "8193 elements, more than 8192"),
        ({str(key): 0.0 for key in range(1025)}, "TooManyFieldsError", "1025 fields, more than 1024"),
        ({"x" * 1025: 0.0}, "SchemaEnforcementError", "at most 1024 characters"),
    ],
    ids=["array", "fields", "name"],
)
async def test_the_parts_of_a_value_are_limited(t: TestBackend, value: Any, code: str, text: str) -> None:
    error = await refusal(t, "query", "echo", value=value)
    assert error.code == "ArgumentValidationError" and text in error.message
    with pytest.raises(SchemaError, match=f"table 'blobs': .*{text}") as refused:
        await t.run(lambda ctx: ctx.db.insert(Blob(deep=value)))
    assert refused.value.code == code
