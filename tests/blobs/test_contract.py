"""What every blob store promises: on the disk, and in an S3-compatible store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from reactor.blobs.blob_store import BLOCK_BYTES, BlobMissing, BlobStore
from reactor.blobs.disk import DiskBlobs
from reactor.blobs.objects import PART_BYTES, ObjectBlobs
from reactor.errors import ReactorError, StoreError
from tests.support.s3 import S3, s3_server

pytestmark = pytest.mark.anyio


@dataclass
class Place:
    """A store and what is in it, looked at from outside."""

    blobs: BlobStore
    left: Callable[[], list[str]]  # all that takes space, complete or not


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        folder = tmp_path / "files"
        return Place(DiskBlobs(folder), lambda: [file.name for file in folder.rglob("*") if file.is_file()])
    s3: S3 = request.getfixturevalue("s3")
    prefix = str(uuid.uuid4())

    def left() -> list[str]:
        return [key.removeprefix(f"{prefix}/") for key in (*s3.keys(), *s3.parts()) if key.startswith(prefix)]

    return Place(ObjectBlobs(f"s3://{s3.bucket}/{prefix}"), left)


def new_key() -> str:
    return str(uuid.uuid4())


async def blocks(*contents: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for content in contents:
        yield content
    if then is not None:
        raise then


async def read(place: Place, key: str, start: int, end: int) -> bytes:
    return b"".join([block async for block in place.blobs.get(key, start, end)])


@pytest.mark.parametrize("contents", [[], [b""], [b"x"], [b"ab", b"", b"c"], [bytes(BLOCK_BYTES)] * 5])
async def test_what_is_put_is_got(place: Place, contents: list[bytes]) -> None:
    key, whole = new_key(), b"".join(contents)
    await place.blobs.put(key, blocks(*contents))
    assert await read(place, key, 0, len(whole)) == whole
    assert place.left() == [key]


async def test_of_several_parts_too(place: Place) -> None:
    key = new_key()
    whole = b"".join(bytes([at]) * BLOCK_BYTES for at in range(2 * PART_BYTES // BLOCK_BYTES + 3))
    await place.blobs.put(key, blocks(*(whole[at : at + BLOCK_BYTES] for at in range(0, len(whole), BLOCK_BYTES))))
    assert await read(place, key, 0, len(whole)) == whole
    assert await read(place, key, PART_BYTES - 1, PART_BYTES + 1) == whole[PART_BYTES - 1 : PART_BYTES + 1]


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 10), (3, 7), (9, 10), (10, 10), (0, 0)])
async def test_a_part_is_got_alone(place: Place, start: int, end: int) -> None:
    key = new_key()
    await place.blobs.put(key, blocks(b"0123456789"))
    assert await read(place, key, start, end) == b"0123456789"[start:end]


async def test_blocks_are_of_bounded_size(place: Place) -> None:
    key, size = new_key(), 5 * BLOCK_BYTES + 7
    await place.blobs.put(key, blocks(bytes(size)))
    sizes = [len(block) async for block in place.blobs.get(key, 0, size)]
    assert sum(sizes) == size and max(sizes) < 4 * BLOCK_BYTES


async def test_one_that_is_not_there_or_too_short_is_told(place: Place) -> None:
    with pytest.raises(BlobMissing):
        await read(place, new_key(), 0, 1)
    key = new_key()
    await place.blobs.put(key, blocks(b"abc"))
    with pytest.raises(BlobMissing, match="ends at byte 3, not at 4"):
        await read(place, key, 1, 4)


async def test_what_is_deleted_is_gone_and_deleting_it_again_is_no_error(place: Place) -> None:
    key, other = new_key(), new_key()
    await place.blobs.put(key, blocks(b"abc"))
    await place.blobs.put(other, blocks(b"abc"))
    await place.blobs.delete(key)
    await place.blobs.delete(key)
    assert place.left() == [other]


@pytest.mark.parametrize("size", [0, 3, PART_BYTES + 1], ids=["nothing", "some bytes", "more than a part"])
@pytest.mark.parametrize("failure", [RuntimeError, FileNotFoundError])
async def test_of_content_that_breaks_off_nothing_is_left_and_its_failure_is_told(
    place: Place, size: int, failure: type[Exception]
) -> None:
    with pytest.raises(failure, match="gone"):
        await place.blobs.put(new_key(), blocks(bytes(size), then=failure("gone")))
    assert place.left() == []


@pytest.mark.parametrize("size", [3, PART_BYTES + 1], ids=["some bytes", "more than a part"])
async def test_of_a_put_that_is_cancelled_nothing_is_left(place: Place, size: int) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(size)
        waiting.set()
        await asyncio.Event().wait()

    putting = asyncio.ensure_future(place.blobs.put(new_key(), endless()))
    await waiting.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert place.left() == []


async def test_reading_may_stop_in_the_middle(place: Place) -> None:
    key = new_key()
    await place.blobs.put(key, blocks(bytes(3 * BLOCK_BYTES)))
    async with aclosing(cast(Any, place.blobs.get(key, 0, 3 * BLOCK_BYTES))) as found:
        assert await anext(found)
    await place.blobs.delete(key)


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "a/b", "", "..", "01234567-89AB-4DEF-8123-456789ABCDEF", "01234567-89ab-4def-8123-456789abcdef\n"]
)
async def test_nothing_but_a_key_becomes_a_path(place: Place, key: str) -> None:
    for use in (place.blobs.put(key, blocks(b"x")), place.blobs.delete(key), read(place, key, 0, 1)):
        with pytest.raises(AssertionError, match="is no blob's key"):
            await use
    assert place.left() == []


# --- on the disk


async def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blobs = DiskBlobs(tmp_path / "file")
    with pytest.raises(StoreError, match="Not a directory"):
        await blobs.put(new_key(), blocks(b"x"))
    with pytest.raises(StoreError, match="Not a directory"):
        await blobs.delete(new_key())


async def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import reactor.blobs.disk as disk
    from reactor.errors import StoreFull

    def full(file: Any, block: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk._File, "write", full)
    with pytest.raises(StoreFull, match="no space left"):
        await DiskBlobs(tmp_path).put(new_key(), blocks(b"x"))
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


# --- in an S3-compatible store


async def test_a_store_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch, s3: S3) -> None:
    blobs = ObjectBlobs("s3://no-such-bucket/prefix")
    with pytest.raises(StoreError, match="s3://no-such-bucket/prefix/"):
        await blobs.put(new_key(), blocks(bytes(PART_BYTES), bytes(PART_BYTES), bytes(PART_BYTES), bytes(PART_BYTES), b"x"))
    with pytest.raises(StoreError):
        await anext(cast(Any, blobs.get(new_key(), 0, 1)))


@pytest.mark.parametrize("url", ["s4://bucket", "s3://", "://"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ReactorError, match="Files cannot be kept at"):
        ObjectBlobs(url)
