"""``ctx.storage``: files, as each kind of function has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from reactor.errors import FileError
from reactor.functions.files import delete_file, key_of
from reactor.schema.system import StoredFile
from reactor.values.ids import Id

if TYPE_CHECKING:
    from reactor.functions.database import Reader, Writer
    from reactor.functions.files import Files

__all__ = ["ActionStorage", "StorageReader", "StorageWriter", "check_content_type"]


class StorageReader:
    """``ctx.storage`` of a query: reads are part of what it read, so it runs again when a file is stored or deleted."""

    __slots__ = ("_db", "_files")

    def __init__(self, db: Reader, files: Files) -> None:
        self._db = db
        self._files = files

    async def get_url(self, id: Id[StoredFile], /) -> str | None:
        """Where the file is served, or None if there is no such file.

        Whoever has the URL can read the file, without signing in, until it is deleted.

        Raises:
            IdError: not an id of a file.
        """
        key = await key_of(self._db, id)
        return None if key is None else self._files.download_url(key)

    async def get_metadata(self, id: Id[StoredFile], /) -> StoredFile | None:
        """The file's size, SHA-256 and content type, or None if there is no such file. The same as ``ctx.db.get(id)``.

        Raises:
            IdError: not an id of a file.
        """
        return await self._db.get(StoredFile, id)


class StorageWriter(StorageReader):
    """``ctx.storage`` of a mutation: what it does, it does with its commit."""

    __slots__ = ("_now_ms",)

    def __init__(self, db: Writer, files: Files, now_ms: float) -> None:
        super().__init__(db, files)
        self._now_ms = now_ms

    async def generate_upload_url(self) -> str:
        """A URL that takes a file by POST, for an hour, and answers ``{"storageId": …}``. Whoever has it can store files."""
        self._db.check_open()
        return self._files.upload_url(self._now_ms)

    async def delete(self, id: Id[StoredFile], /) -> None:
        """Delete a file, if the mutation commits.

        Raises:
            FileError: there is no such file.
            IdError: not an id of a file.
        """
        await delete_file(cast("Writer", self._db), id, self._now_ms)


class ActionStorage:
    """``ctx.storage`` of an action: each call is a transaction of its own."""

    __slots__ = ("_files",)

    def __init__(self, files: Files) -> None:
        self._files = files

    async def store(
        self, data: bytes | AsyncIterator[bytes], /, content_type: str | None = None, *, sha256: bytes | None = None
    ) -> Id[StoredFile]:
        """Store a file; it is durable when this returns.

        Args:
            data: the content, whole or in chunks; of chunks no more than a few are held in memory.
            content_type: as it is to be served, such as ``image/png``.
            sha256: the digest of the content, to have it checked.

        Raises:
            FileError: the content, its type or its digest cannot be taken. Nothing is stored.
            StoreError: it cannot be kept.
            What the iterator raises; then nothing is stored.

        Cancelling it leaves nothing.
        """
        check_content_type(content_type, self._files.content_type_chars)
        chunks = _whole(data) if isinstance(data, bytes | bytearray | memoryview) else data
        if not hasattr(chunks, "__aiter__"):
            raise FileError(f"store takes bytes or an async iterator of bytes, not {type(data).__name__}.", code="InvalidArgument")
        return await self._files.store(chunks, content_type, sha256)

    async def generate_upload_url(self) -> str:
        """As in a mutation."""
        return self._files.upload_url_now()

    async def get_url(self, id: Id[StoredFile], /) -> str | None:
        """As in a query."""
        found = await self._files.find_id(id)
        return None if found is None else self._files.download_url(found.key)

    async def get_metadata(self, id: Id[StoredFile], /) -> StoredFile | None:
        """As in a query."""
        found = await self._files.find_id(id)
        return None if found is None else found.file

    async def get(self, id: Id[StoredFile], /) -> bytes | None:
        """The whole content, or None if there is no such file. For large files ``open`` it instead.

        Raises:
            IdError: not an id of a file.
            StoreError: the content cannot be read.
        """
        found = await self._files.find_id(id)
        if found is None:
            return None
        return b"".join([block async for block in self._files.read(found)])

    async def open(self, id: Id[StoredFile], /) -> AsyncIterator[bytes]:
        """The content in chunks: ``async for chunk in ctx.storage.open(id)``.

        Raises:
            FileError: there is no such file.
            IdError: not an id of a file.
            StoreError: the content cannot be read.
        """
        found = await self._files.find_id(id)
        if found is None:
            raise FileError(f"There is no file {id}. It was deleted, or never stored.", code="FileNotFound")
        async with aclosing(cast(Any, self._files.read(found))) as blocks:
            async for block in blocks:
                yield block

    async def delete(self, id: Id[StoredFile], /) -> None:
        """Delete a file.

        Raises:
            FileError: there is no such file.
            IdError: not an id of a file.
        """
        await self._files.delete(id)


async def _whole(data: bytes | bytearray | memoryview) -> AsyncIterator[bytes]:
    yield bytes(data)


def check_content_type(content_type: object, most_chars: int) -> None:
    """Check what a file is to be served as.

    Raises:
        FileError: code ``InvalidContentType``: it could not stand in a header.
    """
    if content_type is None:
        return
    if not isinstance(content_type, str) or not content_type.isascii() or not content_type.isprintable() or not content_type.strip():
        raise FileError(f"{content_type!r} is no content type. Write one like image/png.", code="InvalidContentType")
    if len(content_type) > most_chars:
        raise FileError(f"A content type has at most {most_chars} characters, this one has {len(content_type)}.", code="InvalidContentType")
