"""The Protocol that a store of blobs fulfils, with the promises that files rest on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Protocol

from reactor.errors import StoreError

__all__ = ["BLOCK_BYTES", "BlobMissing", "BlobStore", "check_key"]

#: Content is moved in blocks of about this size.
BLOCK_BYTES = 256 * 1024

_KEY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class BlobMissing(StoreError):
    """There is no such blob, or less of it than there was."""

    code = "BlobMissing"


class BlobStore(Protocol):
    """Bytes by key. A key is drawn by reactor, a UUID in its canonical text, and never given out twice."""

    async def put(self, key: str, blocks: AsyncIterator[bytes]) -> None:
        """Keep a blob. It is durable when this returns. When ``blocks`` raises, or this is cancelled, nothing is left of it.

        No more than a few blocks, or parts of what the store takes at once, are in memory.

        Raises:
            StoreError: it cannot be kept.
        """
        ...

    def get(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to ``end``, in blocks. To be closed by whoever does not take them all.

        Raises:
            BlobMissing: they are not there.
            StoreError: they cannot be read.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete a blob, or what an interrupted ``put`` left. One that is not there is no error.

        Raises:
            StoreError: it cannot be deleted now.
        """
        ...


def check_key(key: str) -> str:
    """``key``, which is about to become a part of a path or address."""
    assert _KEY.fullmatch(key), f"{key!r} is no blob's key"
    return key
