"""Files over HTTP: uploads to a URL with a token, downloads from one that is a secret itself. Streamed both ways.

What is served was sent by somebody, and from the address of the API and perhaps of a page. So nothing of it can run there: no type is
guessed, what could have scripts is shown in a sandbox and offered to be saved, and pages of other origins may load it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import orjson

from reactor.errors import AuthenticationError, FileError, LimitExceeded, StoreError, StoreFull
from reactor.functions.files import DOWNLOAD_PATH, UPLOAD_PATH, Found
from reactor.functions.runner import Runner
from reactor.functions.storage import check_content_type
from reactor.schema.system import StoredFile
from reactor.server.http_api import Call, ClientGone, Headers, HttpError, Receive, Reply, Scope, Send, allowed, preflight, send_reply

__all__ = ["FileServer"]

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
#: Of an upload, in each period that its client may be waited for.
LEAST_BYTES = 16 * 1024
#: Digits of a position in a file: more are past the end of every file.
_RANGE_DIGITS = 18
#: Shown by browsers where a page is navigated to; all others are saved. None of these runs anything.
_SHOWN = re.compile(r"image/(?!svg)|audio/|video/|font/|text/plain\Z|application/pdf\Z")
#: Browsers show it by a part of their own that does not run in a sandbox.
_PDF = "application/pdf"


class FileServer:
    """Serves ``/api/storage/``."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._limits = runner.limits

    @staticmethod
    def serves(path: str) -> bool:
        """Whether this path is that of files, whatever it answers."""
        return path.startswith(DOWNLOAD_PATH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Cancelling it leaves nothing of an upload."""
        call = Call(scope, receive, dict(scope["headers"]))
        method, path = scope["method"], scope["path"]
        if method == "OPTIONS":
            await send_reply(send, Reply(b"", 200, b"text/plain; charset=utf-8", preflight(call.headers)))
            return
        try:
            if path == UPLOAD_PATH:
                if method != "POST":
                    raise HttpError(405, "MethodNotAllowed", f"An upload URL takes POST, not {method}.")
                reply = await self._upload(call)
            elif method in ("GET", "HEAD"):
                await self._download(call, send, path.removeprefix(DOWNLOAD_PATH).lower())
                return
            else:
                raise HttpError(405, "MethodNotAllowed", f"A file's URL takes GET, not {method}.")
        except HttpError as error:
            reply = error.reply
        except ClientGone:
            return
        except StoreError:
            logger.exception("A file could not be served")
            reply = HttpError(500, "InternalServerError", "The file cannot be served. The server's log says why.").reply
        await send_reply(send, reply._replace(headers=(*reply.headers, *allowed(call.headers.get(b"origin")))))

    # --- uploads

    async def _upload(self, call: Call) -> Reply:
        files = self._runner.files
        try:
            files.check_upload_token(_token(call))
            content_type = _content_type(call)
            check_content_type(content_type, self._limits.content_type_chars)
            sha256 = _announced_sha256(call)
            id = await files.store(self._chunks(call), content_type, sha256)
        except AuthenticationError as error:
            raise HttpError(403, error.code, error.message) from None
        except FileError as error:
            raise HttpError(408 if error.code == "UploadTooSlow" else 400, error.code, error.message) from None
        except LimitExceeded as error:
            raise HttpError(503, error.code, error.message) from None
        except StoreFull:
            logger.exception("An upload could not be stored")
            raise HttpError(507, "StorageFull", "There is no space left for this file. Nothing was stored.") from None
        except StoreError:
            logger.exception("An upload could not be stored")
            raise HttpError(500, "InternalServerError", "The file could not be stored. The server's log says why.") from None
        return Reply(orjson.dumps({"storageId": id}))

    async def _chunks(self, call: Call) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            ClientGone: the client did not send all of it.
            FileError: code ``UploadTooSlow``.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.upload_time_s
        # The server's own slowness, in keeping what came, does not count.
        waited_s, size = 0.0, 0
        more = True
        while more:
            began = loop.time()
            try:
                async with asyncio.timeout_at(min(deadline, began + self._limits.upload_idle_s - waited_s)):
                    message = await call.receive()
            except TimeoutError:
                raise FileError(
                    f"The upload took longer than {self._limits.upload_time_s:g} s, or next to nothing came for "
                    f"{self._limits.upload_idle_s:g} s. Nothing was stored.",
                    code="UploadTooSlow",
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message.get("more_body", False)
            body = message.get("body", b"")
            waited_s, size = waited_s + loop.time() - began, size + len(body)
            if size >= LEAST_BYTES:
                waited_s, size = 0.0, 0
            yield body

    # --- downloads

    async def _download(self, call: Call, send: Send, key: str) -> None:
        if not _KEY.fullmatch(key):
            raise HttpError(400, "InvalidStoragePath", "This is no URL of a file. Take it from ctx.storage.get_url().")
        found = await self._runner.files.find(key)
        if found is None:
            raise HttpError(404, "FileNotFound", "There is no file at this URL. It was deleted, or never stored.")
        file, size = found.file, int(found.file.size)
        head = call.scope["method"] == "HEAD"
        ranged = call.headers.get(b"range") if not head else None
        start, end = (0, size) if ranged is None else _range(ranged, size)
        headers: Headers = [*_served_as(file), *allowed(call.headers.get(b"origin")), (b"content-length", b"%d" % (end - start))]
        if ranged is None:
            headers.append((b"digest", b"sha-256=" + file.sha256.encode()))
        else:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
        answer = {"type": "http.response.start", "status": 200 if ranged is None else 206, "headers": headers}
        if head:
            await send(answer)
            await send({"type": "http.response.body", "body": b""})
            return
        await self._send(send, answer, found, start, end)

    async def _send(self, send: Send, answer: dict[str, Any], found: Found, start: int, end: int) -> None:
        async with aclosing(cast(Any, self._runner.files.read(found, start, end))) as blocks:
            try:
                block = await anext(blocks, b"")
            except StoreError:
                logger.exception("The content of file %s cannot be read", found.file.id)
                raise HttpError(500, "InternalServerError", "The file cannot be read. The server's log says why.") from None
            try:
                await self._soon(send(answer))
                while block:
                    await self._soon(send({"type": "http.response.body", "body": block, "more_body": True}))
                    block = await anext(blocks, b"")
                await self._soon(send({"type": "http.response.body", "body": b""}))
            except StoreError:
                logger.exception("The content of file %s cannot be read to its end", found.file.id)
            except TimeoutError:
                # Ending here, with less sent than announced, makes the server close the connection.
                logger.info("A client took nothing of file %s for %g s, and was dropped", found.file.id, self._limits.upload_idle_s)

    async def _soon(self, sending: Any) -> None:
        async with asyncio.timeout(self._limits.upload_idle_s):
            await sending


def _token(call: Call) -> str:
    return call.query().get("token", "")


def _content_type(call: Call) -> str | None:
    header = call.headers.get(b"content-type", b"").decode("latin-1").strip()
    return header or None


def _announced_sha256(call: Call) -> bytes | None:
    """What the header ``Digest`` says."""
    header = call.headers.get(b"digest")
    if header is None:
        return None
    name, _, encoded = header.decode("latin-1").strip().partition("=")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if name.lower() != "sha-256" or len(digest) != 32:
        raise HttpError(400, "BadHeader", "The header Digest is not understood. Write 'Digest: sha-256=<base64>', or leave it out.")
    return digest


def _range(header: bytes, size: int) -> tuple[int, int]:
    """The part of a file of ``size`` bytes that a header ``Range`` asks for.

    Raises:
        HttpError: it is not one part of it.
    """
    asked = _RANGE.fullmatch(header.decode("latin-1").strip())
    first, last = asked.groups() if asked is not None else ("", "")
    start, end = size, size
    if len(first) <= _RANGE_DIGITS and len(last) <= _RANGE_DIGITS:
        if first:
            start, end = int(first), min(size, int(last) + 1) if last else size
        elif last:
            start = max(0, size - int(last))
    if start >= end:
        refused = HttpError(416, "RangeNotSatisfiable", f"The file has {size} bytes. Ask for one range inside it, such as 'bytes=0-99'.")
        refused.reply = refused.reply._replace(headers=((b"content-range", b"bytes */%d" % size),))
        raise refused
    return start, end


def _served_as(file: StoredFile) -> Headers:
    """What tells a browser how to take a file."""
    kind = file.content_type or ""
    # Of several types browsers take the last, so it counts as none.
    essence = "" if "," in kind else kind.partition(";")[0].strip().lower()
    headers: Headers = [
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"private, max-age=2592000"),
        (b"x-content-type-options", b"nosniff"),
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"content-disposition", b"inline" if _SHOWN.match(essence) else b"attachment"),
    ]
    if kind:
        headers.append((b"content-type", kind.encode()))
    if essence != _PDF:
        headers.append((b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox"))
    return headers
