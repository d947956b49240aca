"""Files: their content in a blob store, all else about them in documents that commit with the mutation.

Every blob has a ``StoredBlob`` from before its first byte until after its last. One that no file points to, since its upload broke
off, the server died, or the file was deleted, says when it may be collected; so nothing is ever left behind unknown.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import math
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from reactor.blobs.blob_store import BLOCK_BYTES, BlobStore
from reactor.errors import AuthenticationError, FileError, LimitExceeded, StoreError
from reactor.functions.database import Reader, Writer, system
from reactor.schema.index import between
from reactor.schema.system import StoredBlob, StoredFile
from reactor.values.ids import Id

if TYPE_CHECKING:
    from reactor.functions.runner import Runner

__all__ = ["DOWNLOAD_PATH", "UPLOAD_PATH", "Files", "Found", "delete_file", "key_of"]

logger = logging.getLogger(__name__)

#: How often blobs that no file points to are looked for.
COLLECT_EVERY_S = 30.0
#: At a time.
COLLECT_BLOBS = 100
#: How long after the end of the time for uploads one is given up, as seen from another node whose clock differs.
MARGIN_MS = 60_000.0

UPLOAD_PATH = "/api/storage/upload"
DOWNLOAD_PATH = "/api/storage/"

_MAC_BYTES = 16
_NONCE_BYTES = 16


class Found(NamedTuple):
    """A file to be read: its document, and the key of its content."""

    file: StoredFile
    key: str


class Files:
    """The files of one database.

    Args:
        blobs: where the content is.
        secret: of the database; authenticates the tokens in upload URLs.
    """

    def __init__(self, runner: Runner, blobs: BlobStore, secret: bytes) -> None:
        self._runner = runner
        self._blobs = blobs
        self._secret = hashlib.blake2b(b"reactor upload tokens", key=secret[:64], digest_size=32).digest()
        self._storing = 0
        self._began_ms = self._now_ms

    @property
    def content_type_chars(self) -> int:
        """The longest content type."""
        return self._runner.limits.content_type_chars

    @property
    def _now_ms(self) -> float:
        return self._runner.runtime.now_ns() / 1e6

    # --- URLs

    def upload_url(self, now_ms: float) -> str:
        """Where a file can be sent to, by POST, for an hour from ``now_ms`` on."""
        expires_ms = int(now_ms + self._runner.limits.upload_url_s * 1000)
        body = expires_ms.to_bytes(8, "big") + self._runner.runtime.random_bytes(_NONCE_BYTES)
        token = base64.urlsafe_b64encode(self._mac(body) + body).decode()
        return f"{self._origin}{UPLOAD_PATH}?token={token}"

    def upload_url_now(self) -> str:
        """``upload_url`` from now on."""
        return self.upload_url(self._now_ms)

    def check_upload_token(self, token: str) -> None:
        """Check the token of an upload URL.

        Raises:
            AuthenticationError: codes ``InvalidUploadToken`` and ``UploadTokenExpired``.
        """
        try:
            raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if len(body) != 8 + _NONCE_BYTES or not hmac.compare_digest(mac, self._mac(body)):
            raise AuthenticationError(
                "The token of this upload URL is not one of this server's. Get a URL from ctx.storage.generate_upload_url().",
                code="InvalidUploadToken",
            )
        if int.from_bytes(body[:8], "big") * 1_000_000 <= self._runner.runtime.now_ns():
            raise AuthenticationError("This upload URL has expired. Get another just before an upload.", code="UploadTokenExpired")

    def download_url(self, key: str) -> str:
        """Where the content with this key is served."""
        return f"{self._origin}{DOWNLOAD_PATH}{key}"

    @property
    def _origin(self) -> str:
        return self._runner.addresses["CONVEX_CLOUD_URL"]

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, "sha256")[:_MAC_BYTES]

    # --- keeping

    async def store(self, chunks: AsyncIterator[bytes], content_type: str | None, sha256: bytes | None = None) -> Id[StoredFile]:
        """Keep a file. It is durable when this returns.

        Args:
            chunks: its content. Whatever they raise is raised, and nothing is left.
            content_type: as it is to be served.
            sha256: of the content, if it is to be checked.

        Raises:
            FileError: code ``Sha256Mismatch``, and ``UploadTooSlow`` when it took longer than ``limits.upload_time_s``.
            LimitExceeded: code ``TooManyUploads``.
            StoreError: it cannot be kept.

        Cancelling it leaves nothing.
        """
        runner, limits = self._runner, self._runner.limits
        if self._storing >= limits.uploads_running:
            raise LimitExceeded(f"{self._storing} files are being stored already. Try again in a moment.", code="TooManyUploads")
        self._storing += 1
        try:
            key = str(uuid.UUID(bytes=runner.runtime.random_bytes(16), version=4))
            content = _Content()
            try:
                await runner.transact(lambda db, now_ms: _announce(db, key, now_ms + limits.upload_time_s * 1000 + MARGIN_MS))
                await self._blobs.put(key, content.of(chunks))
                if sha256 is not None and sha256 != content.sha256.digest():
                    raise FileError(
                        f"The content has the SHA-256 {content.base64}, not {base64.b64encode(sha256).decode()} as announced. "
                        "Nothing was stored.",
                        code="Sha256Mismatch",
                    )
                file = StoredFile(sha256=content.base64, size=content.size, content_type=content_type)
                return await runner.transact(lambda db, now_ms: _complete(db, key, file, now_ms))
            except BaseException:
                await self._discard(key)
                raise
        finally:
            self._storing -= 1

    async def delete(self, id: Id[StoredFile]) -> None:
        """Delete a file, in a transaction of its own.

        Raises:
            FileError: code ``FileNotFound``.
            IdError: it is no id of a file.
        """
        await self._runner.transact(lambda db, now_ms: delete_file(db, id, now_ms))

    # --- reading

    async def find(self, key: str) -> Found | None:
        """The file whose content has this key."""

        async def look(db: Reader) -> Found | None:
            blob = await db.query(StoredBlob.by_key(key=key)).first()
            file = await db.get(blob.file) if blob is not None and blob.file is not None else None
            return None if file is None else Found(file, key)

        return await self._runner.read(look)

    async def find_id(self, id: Id[StoredFile]) -> Found | None:
        """The file with this id.

        Raises:
            IdError: it is no id of a file.
        """

        async def look(db: Reader) -> Found | None:
            key = await key_of(db, id)
            file = await db.get(StoredFile, id)
            return None if file is None or key is None else Found(file, key)

        return await self._runner.read(look)

    def read(self, found: Found, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The content of a file, or a part of it.

        Raises:
            StoreError: it cannot be read; code ``BlobMissing``: it is not there.
        """
        return self._blobs.get(found.key, start, int(found.file.size) if end is None else end)

    async def check_place(self) -> None:
        """Warn if the newest file's content is not in this node's blob store, which then is another than the other nodes'."""

        async def newest(db: Reader) -> Found | None:
            file = await db.query(StoredFile).order("desc").first()
            key = None if file is None else await key_of(db, file.id)
            return None if file is None or key is None else Found(file, key)

        try:
            found = await self._runner.read(newest)
            if found is None:
                return
            async with aclosing(cast(Any, self.read(found, 0, min(1, int(found.file.size))))) as blocks:
                async for _ in blocks:
                    pass
        except StoreError as error:
            logger.warning(
                "The content of the newest file cannot be read here (%s). Nodes on several machines need one place for files: "
                "set REACTOR_FILES to a folder that they share, or to a bucket.",
                error,
            )

    # --- collecting

    async def run(self, *, alone: bool) -> None:
        """Collect until cancelled.

        Args:
            alone: no other process has the database, so that what was being stored before this one began is stored no more.
        """
        begun_before_ms = self._began_ms if alone else 0.0
        await self.check_place()
        while True:
            try:
                await self.collect(begun_before_ms=begun_before_ms)
                begun_before_ms = 0.0
            except StoreError:
                logger.exception("Deleted files could not be collected; it is tried again in %d s", COLLECT_EVERY_S)
            await self._runner.runtime.sleep(COLLECT_EVERY_S)

    async def collect(self, *, begun_before_ms: float = 0.0) -> int:
        """Delete the blobs that no file points to any more; how many.

        Args:
            begun_before_ms: also those of uploads that began before this moment, though their time is not over.

        Raises:
            StoreError: one cannot be deleted now.
        """
        now_ms = self._now_ms
        until = math.inf if begun_before_ms else now_ms
        collected = 0

        async def look(db: Reader) -> list[StoredBlob]:
            waiting = db.query(StoredBlob.by_collect_ms(collect_ms=between(0, until)))
            return await waiting.filter(lambda blob: (blob.collect_ms or 0) <= now_ms or blob.creation_time < begun_before_ms).take(
                COLLECT_BLOBS
            )

        while blobs := await self._runner.read(look):
            for blob in blobs:
                await self._collect(blob.key)
            collected += len(blobs)
        return collected

    async def _collect(self, key: str) -> None:
        # First the claim: from here on no file can come to point to it, also when the commit of one was on its way. The document
        # goes last: bytes without one would never be found.
        if await self._runner.transact(lambda db, now_ms: _claim(db, key)):
            await self._blobs.delete(key)
            await self._runner.transact(lambda db, now_ms: _forget(db, key))

    async def _discard(self, key: str) -> None:
        try:
            await self._collect(key)
        except StoreError:
            logger.warning("What is left of a file that was not stored is collected later", exc_info=True)


class _Content:
    """What passes through on its way to the blob store: its size and digest."""

    def __init__(self) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()

    @property
    def base64(self) -> str:
        return base64.b64encode(self.sha256.digest()).decode()

    async def of(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same in blocks."""
        waiting = bytearray()
        async for chunk in chunks:
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise FileError(f"A file is stored from bytes, not from {type(chunk).__name__}.", code="InvalidArgument")
            waiting += chunk
            if len(waiting) >= BLOCK_BYTES:
                yield self._passed(bytes(waiting))
                waiting.clear()
        if waiting:
            yield self._passed(bytes(waiting))

    def _passed(self, block: bytes) -> bytes:
        self.size += len(block)
        self.sha256.update(block)
        return block


async def key_of(db: Reader, id: Id[StoredFile]) -> str | None:
    """The key of a file's content, if there is such a file.

    Raises:
        IdError: it is no id of a file.
    """
    if await db.get(StoredFile, id) is None:
        return None
    blob = await system(db).query(StoredBlob.by_file(file=id)).first()
    return None if blob is None else blob.key


async def delete_file(db: Writer, id: Id[StoredFile], now_ms: float) -> None:
    """Delete a file. Its content is collected once this has committed.

    Raises:
        FileError: code ``FileNotFound``.
        IdError: it is no id of a file.
    """
    if await db.get(StoredFile, id) is None:
        raise FileError(f"There is no file {id}. It was deleted, or never stored.", code="FileNotFound")
    own = system(db)
    blob = await own.query(StoredBlob.by_file(file=id)).first()
    assert blob is not None, "every file has a blob"
    await own.delete(id)
    await own.replace(blob.id, StoredBlob(key=blob.key, collect_ms=now_ms))


async def _announce(db: Writer, key: str, collect_ms: float) -> None:
    await db.insert(StoredBlob(key=key, collect_ms=collect_ms))


async def _complete(db: Writer, key: str, file: StoredFile, now_ms: float) -> Id[StoredFile]:
    blob = await db.query(StoredBlob.by_key(key=key)).first()
    if blob is None or blob.collect_ms is None or blob.collect_ms <= now_ms:
        raise FileError("The upload took too long, and was given up. Nothing was stored.", code="UploadTooSlow")
    id = await db.insert(file)
    await db.replace(blob.id, StoredBlob(key=key, file=id))
    return id


async def _claim(db: Writer, key: str) -> bool:
    blob = await db.query(StoredBlob.by_key(key=key)).first()
    if blob is None:
        return True  # it was collected before its content came, and nothing can come to point to it
    if blob.file is not None:
        return False
    await db.replace(blob.id, StoredBlob(key=key, collect_ms=0))
    return True


async def _forget(db: Writer, key: str) -> None:
    blob = await db.query(StoredBlob.by_key(key=key)).first()
    if blob is not None and blob.file is None:
        await db.delete(blob.id)
