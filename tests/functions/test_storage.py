"""``ctx.storage``: files are documents with a content, and both come and go with transactions."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reactor import AppError, FileError, FunctionTimeout, Id, IdError, LimitExceeded, ReactorError, StoredFile, StoreError
from reactor.limits import DEFAULT_LIMITS
from reactor.testing import TestBackend
from tests.functions.app.app_functions import calling, storage
from tests.functions.support import APP, fill

pytestmark = pytest.mark.anyio


def kept(t: TestBackend) -> list[Path]:
    """The contents on the disk."""
    return [file for file in t._runner.files._blobs._folder.rglob("*") if file.is_file()]  # type: ignore[attr-defined]


async def blobs(t: TestBackend) -> int:
    """How many contents are known."""
    from reactor.schema.system import StoredBlob

    return await t._runner.read(lambda db: db.query(StoredBlob).count())


async def test_what_an_action_stores_can_be_read_and_is_described(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"hello", content_type="text/plain")
    url = await t.query(storage.url, id=id)
    assert await t.action(storage.read, id=id) == [b"hello", url, 5]
    assert await t.action(storage.read_chunks, id=id) == b"hello"
    file = await t.query(storage.metadata, id=id)
    assert file is not None and file.id == id
    assert (file.size, file.content_type) == (5, "text/plain")
    assert file.sha256 == base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
    assert round(file.creation_time) == t.runtime.now_ns() / 1e6


async def test_a_file_may_be_empty_and_of_no_type(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"")
    file = await t.query(storage.metadata, id=id)
    assert file is not None and (file.size, file.content_type) == (0, None)
    assert (await t.action(storage.read, id=id))[0] == b""


async def test_content_may_come_in_chunks(t: TestBackend) -> None:
    id = await t.action(storage.store_chunks, to=200_000)
    content = b"".join(f"{number},".encode() for number in range(200_000))
    assert await t.action(storage.read_chunks, id=id) == content
    file = await t.query(storage.metadata, id=id)
    assert file is not None and file.sha256 == base64.b64encode(hashlib.sha256(content).digest()).decode()


async def test_an_url_is_always_the_same_and_does_not_have_the_id(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"x")
    url = await t.query(storage.url, id=id)
    assert url is not None and id not in url
    assert await t.query(storage.url, id=id) == url
    assert (await t.fetch(url)).content == b"x"


# --- deleting


async def test_what_a_mutation_deletes_is_gone_with_its_commit(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"x")
    url = await t.query(storage.url, id=id)
    assert await t.mutation(storage.remove, id=id) is None
    assert url is not None and (await t.fetch(url)).status_code == 404
    assert await t.query(storage.url, id=id) is None
    assert await t.query(storage.metadata, id=id) is None
    assert await t.action(storage.read, id=id) == [None, None, None]
    await t.advance()
    assert kept(t) == [] and await blobs(t) == 0


@pytest.mark.parametrize("function", [storage.remove_and_fail, storage.remove_in_a_call_that_fails])
async def test_what_a_mutation_deletes_that_fails_stays(t: TestBackend, function: object) -> None:
    id = await t.action(storage.store, content=b"x")
    if function is storage.remove_and_fail:
        with pytest.raises(AppError):
            await t.mutation(storage.remove_and_fail, id=id)
    else:
        assert await t.mutation(storage.remove_in_a_call_that_fails, id=id) is not None
    await t.advance(hours=5)
    assert await t.action(storage.read_chunks, id=id) == b"x"


async def test_what_is_deleted_beside_a_call_that_fails_is_not_undone_with_it(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"x")
    committer = t._engine._committer
    committer.cache.clear(committer.position)  # what is not in memory is waited for
    await t.mutation(calling.deletes_beside_a_call, file=id)
    assert await t.query(storage.metadata, id=id) is None
    await t.advance()
    assert kept(t) == [] and await blobs(t) == 0


async def test_an_action_deletes_too(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"x")
    await t.action(storage.remove_by_action, id=id)
    await t.advance()
    assert kept(t) == []


async def test_deleting_what_is_not_there_is_an_error(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"x")
    await t.mutation(storage.remove, id=id)
    for delete in (t.mutation(storage.remove, id=id), t.action(storage.remove_by_action, id=id)):
        with pytest.raises(FileError, match=f"There is no file {id}") as missing:
            await delete
        assert missing.value.code == "FileNotFound"


async def test_content_that_cannot_be_deleted_now_is_deleted_later(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await t.action(storage.store, content=b"x")
    await t.mutation(storage.remove, id=id)

    async def fail(key: str) -> None:
        raise StoreError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(t._runner.files._blobs, "delete", fail)
        with pytest.raises(StoreError):
            await t._runner.files.collect()
    assert len(kept(t)) == 1
    assert await t._runner.files.collect() == 1
    assert kept(t) == [] and await blobs(t) == 0


# --- what does not fit


async def test_ids_that_are_none_or_of_another_table_are_told(t: TestBackend) -> None:
    (item,) = await fill(t, "a", 1)
    for text, said in [("nope", "is not an id"), (item, "Expected an id of table '_storage', got an id of table 'items'")]:
        with pytest.raises(IdError, match=said):
            await t.query(storage.url_of, text=text)
        with pytest.raises(IdError, match=said):
            await t.mutation(storage.remove_text, text=text)
        with pytest.raises(ReactorError, match="id"):
            await t.query("storage:url", id=text)
        with pytest.raises(IdError, match=said):
            await t._runner.files.find_id(Id(text))


async def test_reading_what_is_not_there_is_none_or_an_error_when_opened(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"x")
    await t.mutation(storage.remove, id=id)
    with pytest.raises(FileError, match="There is no file"):
        await t.action(storage.read_chunks, id=id)


@pytest.mark.parametrize("data", ["text", 5, None, ["x"]])
async def test_only_bytes_are_stored(t: TestBackend, data: object) -> None:
    with pytest.raises(FileError, match="store takes bytes or an async iterator of bytes, not"):
        await t.action(storage.store_what_is_none, data=data)
    with pytest.raises(FileError, match="stored from bytes, not from int"):
        await t.action(storage.store_numbers)
    assert kept(t) == [] and await blobs(t) == 0


@pytest.mark.parametrize("content_type", ["", " ", "text/plain\r\nset-cookie: a=b", "ünïcode", "x" * 256])
async def test_a_content_type_that_could_not_stand_in_a_header_is_refused(t: TestBackend, content_type: str) -> None:
    with pytest.raises(FileError, match="content type") as refused:
        await t.action(storage.store, content=b"x", content_type=content_type)
    assert refused.value.code == "InvalidContentType"
    assert kept(t) == []


async def test_a_digest_is_checked(t: TestBackend) -> None:
    right = hashlib.sha256(b"hello").digest()
    assert await t.action(storage.store, content=b"hello", sha256=right)
    with pytest.raises(FileError, match=r"not .* as announced") as refused:
        await t.action(storage.store, content=b"hellO", sha256=right)
    assert refused.value.code == "Sha256Mismatch"
    assert len(kept(t)) == 1 and await blobs(t) == 1


async def test_of_content_that_breaks_off_nothing_is_left(t: TestBackend) -> None:
    with pytest.raises(AppError, match="no more"):
        await t.action(storage.store_chunks, to=100_000, fails=True)
    assert kept(t) == [] and await blobs(t) == 0
    assert await t.query(storage.sizes) == []


async def test_of_an_action_that_runs_out_of_time_nothing_is_left() -> None:
    async with TestBackend(APP, limits=replace(DEFAULT_LIMITS, action_time_s=0.3)) as t:
        with pytest.raises(FunctionTimeout):
            await t.action(storage.store_chunks, to=10**9)
        assert kept(t) == [] and await blobs(t) == 0


async def test_no_more_files_are_stored_at_once_than_allowed() -> None:
    async with TestBackend(APP, limits=replace(DEFAULT_LIMITS, uploads_running=1)) as t:
        going_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x"
            await going_on.wait()

        first = asyncio.ensure_future(t._runner.files.store(slow(), None))
        while await blobs(t) == 0:
            await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="1 files are being stored already") as refused:
            await t.action(storage.store, content=b"y")
        assert refused.value.code == "TooManyUploads"
        going_on.set()
        await first
        await t.action(storage.store, content=b"y")


# --- what is left behind


async def test_content_whose_process_died_is_collected(t: TestBackend) -> None:
    from reactor.functions.files import _announce

    files, runner = t._runner.files, t._runner
    key = "01234567-89ab-4def-8123-456789abcdef"

    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    await runner.transact(lambda db, now_ms: _announce(db, key, now_ms + 1000))
    await files._blobs.put(key, content())
    assert await files.collect() == 0
    assert await files.collect(begun_before_ms=t.runtime.now_ns() / 1e6) == 0
    t.runtime.advance(timedelta(milliseconds=500))
    assert await files.collect(begun_before_ms=t.runtime.now_ns() / 1e6) == 1
    assert kept(t) == [] and await blobs(t) == 0


async def test_a_file_that_was_collected_before_its_first_byte_came_leaves_nothing(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    blob_store = t._runner.files._blobs
    put = blob_store.put

    async def put_late(key: str, chunks: AsyncIterator[bytes]) -> None:
        await t.advance(hours=2)
        assert await blobs(t) == 0
        await put(key, chunks)

    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    monkeypatch.setattr(blob_store, "put", put_late)
    with pytest.raises(FileError, match="took too long"):
        await t._runner.files.store(content(), None)
    assert kept(t) == [] and await blobs(t) == 0


async def test_a_file_whose_time_ran_out_is_not_stored_by_the_last_byte(t: TestBackend) -> None:
    going_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await going_on.wait()

    storing = asyncio.ensure_future(t._runner.files.store(slow(), None))
    while await blobs(t) == 0:
        await asyncio.sleep(0)
    await t.advance(hours=2)
    going_on.set()
    with pytest.raises(FileError, match="took too long"):
        await storing
    assert kept(t) == [] and await blobs(t) == 0 and await t.query(storage.sizes) == []


async def test_a_file_whose_storing_is_cancelled_at_its_commit_is_there_whole_or_not_at_all(t: TestBackend) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    for turns in range(60):
        storing = asyncio.ensure_future(t._runner.files.store(content(), None))
        for _ in range(turns):
            await asyncio.sleep(0)
        storing.cancel()
        await asyncio.gather(storing, return_exceptions=True)
        await t.advance(hours=2)
        assert len(kept(t)) == await blobs(t) == len(await t.query(storage.sizes))


# --- live queries


async def test_a_query_that_asked_for_a_files_url_runs_again_when_it_is_deleted_and_only_then(t: TestBackend) -> None:
    id = await t.action(storage.store, content=b"x")
    other = await t.action(storage.store, content=b"y")
    storage.runs.clear()
    async with aclosing(t.subscribe(storage.url, id=id)) as urls:  # type: ignore[type-var]
        assert await anext(urls) is not None
        await t.mutation(storage.remove, id=other)
        await t.mutation(storage.remove, id=id)
        assert await asyncio.wait_for(anext(urls), 5) is None
    assert storage.runs == ["url", "url"]


async def test_a_query_over_all_files_follows_them(t: TestBackend) -> None:
    async with aclosing(t.subscribe(storage.sizes)) as sizes:  # type: ignore[type-var]
        assert await anext(sizes) == []
        id = await t.action(storage.store, content=b"xyz")
        assert await asyncio.wait_for(anext(sizes), 5) == [3]
        await t.mutation(storage.remove, id=id)
        assert await asyncio.wait_for(anext(sizes), 5) == []


async def test_an_id_of_a_file_is_a_type_of_its_own_for_arguments(t: TestBackend) -> None:
    outcome = await t.action(storage.store, content=b"x")
    file = await t.query(storage.metadata, id=outcome)
    assert isinstance(file, StoredFile)


async def test_uploads_urls_differ_and_come_from_mutations_and_actions(t: TestBackend) -> None:
    urls = {await t.mutation(storage.upload_url), await t.mutation(storage.upload_url), await t.action(storage.upload_url_by_action)}
    assert len(urls) == 3
    for url in urls:
        answer = await t.fetch(url, method="POST", content=b"x")
        assert answer.status_code == 200, answer.text


async def test_a_node_that_has_not_the_files_of_the_others_says_what_to_do(t: TestBackend, caplog: pytest.LogCaptureFixture) -> None:
    files = t._runner.files
    await files.check_place()
    await t.action(storage.store, content=b"here", content_type=None)
    await files.check_place()
    assert caplog.text == ""
    await t.action(storage.store, content=b"on another machine", content_type=None)
    max(kept(t), key=lambda file: file.stat().st_size).unlink()
    await files.check_place()
    assert "REACTOR_FILES to a folder that they share" in caplog.text
