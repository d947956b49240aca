"""Blobs as objects of an S3-compatible store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from reactor.blobs.blob_store import BLOCK_BYTES, BlobMissing, check_key
from reactor.errors import ReactorError, StoreError

__all__ = ["ObjectBlobs"]

#: What is sent at once; an object has at most 10,000 parts, so it can have 80 GiB.
PART_BYTES = 8 * 1024 * 1024
#: Parts of one object on their way at the same time.
PARTS = 2
#: What the library raises: errors of its own, and those of the system that say the same.
_FAILURES = (BaseError, OSError)


class _Stopped(Exception):
    """Ends an upload from our side, so that the store forgets the parts that it has."""


class ObjectBlobs:
    """A ``BlobStore`` in a bucket.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/prefix``. Key, secret, region and endpoint are those of the process's environment:
            ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, ``AWS_ALLOW_HTTP``.

    Raises:
        ReactorError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            self._store = S3Store.from_url(url)
        except (BaseError, ValueError) as error:
            raise ReactorError(f"Files cannot be kept at {url}: {error}. Write s3://bucket/prefix.", code="BadSetting") from None

    async def put(self, key: str, blocks: AsyncIterator[bytes]) -> None:
        ready: asyncio.Queue[bytes | None | _Stopped] = asyncio.Queue(1)

        async def parts() -> AsyncIterator[bytes]:
            while (block := await ready.get()) is not None:
                if isinstance(block, _Stopped):
                    raise block
                yield block

        async def send() -> None:
            await obstore.put_async(self._store, check_key(key), parts(), use_multipart=True, chunk_size=PART_BYTES, max_concurrency=PARTS)

        sending = asyncio.ensure_future(send())
        try:
            # Blocks are taken here and not where the library would, so that whoever is cancelled or raises is this task.
            async for block in blocks:
                await _unless_done(sending, ready.put(block))
            await _unless_done(sending, ready.put(None))
            await asyncio.shield(sending)
        except BaseException as error:
            if not sending.done():
                # One that waits to be taken is in its place.
                while not ready.empty():
                    ready.get_nowait()
                ready.put_nowait(_Stopped())
                await asyncio.wait([sending])
            if not sending.cancelled() and sending.exception() is error and isinstance(error, _FAILURES):
                raise self._error(key, error) from error
            raise

    async def get(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        if start >= end:
            return
        try:
            found = await obstore.get_async(self._store, check_key(key), options={"range": (start, end)})
            async for block in found.stream(min_chunk_size=BLOCK_BYTES):
                start += len(block)
                yield bytes(block)
        except FileNotFoundError as error:
            raise BlobMissing(f"{self._url}/{key}: there is no such object") from error
        except _FAILURES as error:
            raise self._error(key, error) from error
        if start < end:
            raise BlobMissing(f"{self._url}/{key}: the object ends at byte {start}, not at {end}")

    async def delete(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, check_key(key))
        except FileNotFoundError:
            return
        except _FAILURES as error:
            raise self._error(key, error) from error

    def _error(self, key: str, error: Exception) -> StoreError:
        return StoreError(f"{self._url}/{key}: {str(error).splitlines()[0][:500]}")


async def _unless_done(sending: asyncio.Future[None], waiting: Awaitable[None]) -> None:
    """Wait, unless the sending ends before, which it then has to with a failure.

    Raises: what the sending raised.
    """
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait([sending, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            sending.result()
            raise StoreError("the object store took the object before it was complete")
    finally:
        task.cancel()
