"""Files over HTTP: what can be sent and got, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from reactor.limits import DEFAULT_LIMITS
from reactor.testing import TestBackend
from tests.server.support import APP, SmallBackend

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.sqlite_only("content is on the disk, whatever the store; functions/test_storage.py has what is stored of it"),
]

TEN = b"0123456789"
DIGEST = base64.b64encode(hashlib.sha256(TEN).digest()).decode()


async def upload(t: TestBackend, content: bytes = TEN, **headers: str) -> httpx.Response:
    url = await t.mutation("files:upload_url")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await t.fetch(url, method="POST", content=content, headers=named)


async def stored(t: TestBackend, content: bytes = TEN, **headers: str) -> str:
    """The URL of a file just uploaded."""
    answer = await upload(t, content, **headers)
    assert answer.status_code == 200, answer.text
    url: str = await t.query("files:url", id=answer.json()["storageId"])
    return url


def kept(t: TestBackend) -> list[Path]:
    return [file for file in t._runner.files._blobs._folder.rglob("*") if file.is_file()]  # type: ignore[attr-defined]


async def nothing_is_left(t: TestBackend) -> None:
    from reactor.schema.system import StoredBlob, StoredFile

    assert kept(t) == []
    assert await t._runner.read(lambda db: db.query(StoredBlob).collect()) == []
    assert await t._runner.read(lambda db: db.query(StoredFile).collect()) == []


# --- sending and getting


async def test_what_was_sent_is_got_with_its_type_size_and_digest(t: TestBackend) -> None:
    answer = await t.fetch(await stored(t, content_type="image/png"))
    assert (answer.status_code, answer.content) == (200, TEN)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == "10"
    assert answer.headers["digest"] == f"sha-256={DIGEST}"
    assert answer.headers["cache-control"] == "private, max-age=2592000"
    assert answer.headers["accept-ranges"] == "bytes"


async def test_a_file_without_a_type_is_served_without_one(t: TestBackend) -> None:
    answer = await t.fetch(await stored(t))
    assert "content-type" not in answer.headers
    assert (await t.query("files:newest"))["contentType"] is None


async def test_an_empty_file_is_one_too(t: TestBackend) -> None:
    answer = await t.fetch(await stored(t, b""))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


async def test_the_headers_alone_are_the_same(t: TestBackend) -> None:
    url = await stored(t, content_type="text/plain")
    got, head = await t.fetch(url), await t.fetch(url, method="HEAD")
    assert (head.status_code, head.content, head.headers) == (200, b"", got.headers)


async def test_an_upload_url_may_be_used_more_than_once(t: TestBackend) -> None:
    url = await t.mutation("files:upload_url")
    ids = {(await t.fetch(url, method="POST", content=TEN)).json()["storageId"] for _ in range(3)}
    assert len(ids) == 3


async def test_an_announced_digest_is_checked(t: TestBackend) -> None:
    assert (await upload(t, digest=f"sha-256={DIGEST}")).status_code == 200
    assert (await upload(t, digest=f"SHA-256={DIGEST}")).status_code == 200
    wrong = await upload(t, b"other", digest=f"sha-256={DIGEST}")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "Sha256Mismatch")
    assert len(kept(t)) == 2


# --- uploads that are refused


async def test_a_token_is_valid_for_an_hour(t: TestBackend) -> None:
    url = await t.mutation("files:upload_url")
    await t.advance(minutes=59)
    assert (await t.fetch(url, method="POST", content=TEN)).status_code == 200
    await t.advance(minutes=1)
    expired = await t.fetch(url, method="POST", content=TEN)
    assert (expired.status_code, expired.json()["code"]) == (403, "UploadTokenExpired")


@pytest.mark.parametrize("change", ["none", "empty", "no base64", "one bit", "another's", "shorter", "longer", "not ASCII"])
async def test_no_other_token_is_accepted(t: TestBackend, change: str) -> None:
    url = await t.mutation("files:upload_url")
    base, _, token = url.partition("?token=")
    raw = base64.urlsafe_b64decode(token)
    tokens = {
        "empty": "",
        "no base64": "!!!!",
        "one bit": base64.urlsafe_b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode(),
        "shorter": base64.urlsafe_b64encode(raw[:-3]).decode(),
        "longer": base64.urlsafe_b64encode(raw + b"abc").decode(),
        "not ASCII": "%C3%A4",
    }
    if change == "another's":
        async with TestBackend(APP) as other:
            tokens[change] = (await other.mutation("files:upload_url")).partition("?token=")[2]
    refused = await t.fetch(base + (f"?token={tokens[change]}" if change != "none" else ""), method="POST", content=TEN)
    assert (refused.status_code, refused.json()["code"]) == (403, "InvalidUploadToken")
    await nothing_is_left(t)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"digest": DIGEST}, "BadHeader"),
        ({"digest": "md5=abc"}, "BadHeader"),
        ({"digest": "sha-256=!!"}, "BadHeader"),
        ({"digest": "sha-256=abcd"}, "BadHeader"),
        ({"digest": ""}, "BadHeader"),
        ({"content_type": "x" * 256}, "InvalidContentType"),
        ({"content_type": b"text/pl\xe4in"}, "InvalidContentType"),
        ({"content_type": b"text/plain\x7f"}, "InvalidContentType"),
    ],
)
async def test_headers_that_cannot_be_are_refused(t: TestBackend, headers: Any, code: str) -> None:
    refused = await upload(t, **headers)
    assert (refused.status_code, refused.json()["code"]) == (400, code)
    await nothing_is_left(t)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
async def test_an_upload_url_takes_nothing_but_post(t: TestBackend, method: str) -> None:
    url = await t.mutation("files:upload_url")
    assert (await t.fetch(url, method=method)).status_code == 405


class Upload:
    """An upload whose body comes as the test says."""

    def __init__(self, t: TestBackend, url: str) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        parts = urlsplit(url)
        scope = {"type": "http", "method": "POST", "path": parts.path, "query_string": parts.query.encode(), "headers": []}
        self.answered = asyncio.ensure_future(t._server(scope, self.messages.get, self._send))

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def part(self, content: bytes, *, more: bool = True) -> None:
        self.messages.put_nowait({"type": "http.request", "body": content, "more_body": more})

    def leave(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
async def test_of_an_upload_that_breaks_off_nothing_is_left(t: TestBackend, size: int) -> None:
    started = Upload(t, await t.mutation("files:upload_url"))
    started.part(bytes(size))
    started.leave()
    await started.answered
    assert started.sent == []
    await nothing_is_left(t)


async def test_of_an_upload_that_the_servers_stop_cuts_off_nothing_is_left(t: TestBackend) -> None:
    started = Upload(t, await t.mutation("files:upload_url"))
    started.part(bytes(1_000_000))
    while not kept(t):
        await asyncio.sleep(0)
    started.answered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await started.answered
    await nothing_is_left(t)


@pytest.mark.parametrize("limits", [{"upload_idle_s": 0.05}, {"upload_time_s": 0.05}])
async def test_a_client_that_sends_nothing_more_is_given_up(limits: dict[str, float]) -> None:
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, **limits)) as t:  # type: ignore[arg-type]
        started = Upload(t, await t.mutation("files:upload_url"))
        started.part(b"x")
        await asyncio.wait_for(started.answered, 10)
        assert started.sent[0]["status"] == 408
        await nothing_is_left(t)


async def test_a_client_that_sends_next_to_nothing_is_given_up() -> None:
    """Else a few of them would have all the places there are for as long as an upload may last."""
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, upload_idle_s=0.2)) as t:
        started = Upload(t, await t.mutation("files:upload_url"))
        async with asyncio.timeout(10):
            while not started.answered.done():
                started.part(b"x")
                await asyncio.wait((started.answered,), timeout=0.01)
        assert started.sent[0]["status"] == 408
        await nothing_is_left(t)


async def test_no_more_uploads_run_at_once_than_allowed() -> None:
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, uploads_running=2)) as t:
        url = await t.mutation("files:upload_url")
        running = [Upload(t, url), Upload(t, url)]
        for one in running:
            one.part(b"x")
        while len(kept(t)) < 2:
            await asyncio.sleep(0)
        refused = await t.fetch(url, method="POST", content=TEN)
        assert (refused.status_code, refused.json()["code"]) == (503, "TooManyUploads")
        for one in running:
            one.part(b"", more=False)
            await one.answered
            assert one.sent[0]["status"] == 200
        assert (await t.fetch(url, method="POST", content=TEN)).status_code == 200


async def test_a_full_disk_is_told(t: TestBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import reactor.blobs.disk as disk

    def full(file: Any, block: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk._File, "write", full)
    refused = await upload(t)
    assert (refused.status_code, refused.json()["code"]) == (507, "StorageFull")
    await nothing_is_left(t)


# --- a part of a file


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=2-4", 2, 5),
        ("bytes=5-", 5, 10),
        ("bytes=-3", 7, 10),
        ("bytes=-99", 0, 10),
        ("bytes=8-999999999999999999", 8, 10),
    ],
)
async def test_one_range_is_served_alone(t: TestBackend, asked: str, start: int, end: int) -> None:
    answer = await t.fetch(await stored(t, content_type="text/plain"), headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, TEN[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/10"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["content-type"] == "text/plain"
    assert "digest" not in answer.headers


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=10-",
        "bytes=99-100",
        "bytes=5-4",
        "bytes=-0",
        "bytes=-",
        "bytes=0-1,3-4",
        "bytes=a-b",
        "items=0-1",
        "0-1",
        "",
        f"bytes={'9' * 99}-",
    ],
)
async def test_other_ranges_cannot_be_served(t: TestBackend, asked: str) -> None:
    refused = await t.fetch(await stored(t), headers={"range": asked})
    assert (refused.status_code, refused.json()["code"]) == (416, "RangeNotSatisfiable")
    assert refused.headers["content-range"] == "bytes */10"


async def test_an_empty_file_has_no_range(t: TestBackend) -> None:
    assert (await t.fetch(await stored(t, b""), headers={"range": "bytes=0-"})).status_code == 416


# --- downloads that are refused


async def test_a_deleted_file_is_not_served(t: TestBackend) -> None:
    answer = await upload(t)
    id = answer.json()["storageId"]
    url = await t.query("files:url", id=id)
    await t.mutation("files:remove", id=id)
    gone = await t.fetch(url)
    assert (gone.status_code, gone.json()["code"]) == (404, "FileNotFound")


async def test_an_id_is_no_address(t: TestBackend) -> None:
    id = (await upload(t)).json()["storageId"]
    refused = await t.fetch(f"/api/storage/{id}")
    assert (refused.status_code, refused.json()["code"]) == (400, "InvalidStoragePath")


@pytest.mark.parametrize("path", ["", "x", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "0" * 36, "a/b", "upload/x", "%00"])
async def test_nothing_but_an_address_of_a_file_is_looked_up(t: TestBackend, path: str) -> None:
    refused = await t.fetch(f"/api/storage/{path}")
    assert refused.status_code in (400, 404)
    assert refused.json()["code"] in ("InvalidStoragePath", "NotFound")


async def test_an_address_that_was_never_given_is_not_found(t: TestBackend) -> None:
    refused = await t.fetch("/api/storage/01234567-89ab-4def-8123-456789abcdef")
    assert (refused.status_code, refused.json()["code"]) == (404, "FileNotFound")


async def test_a_files_address_takes_nothing_but_get(t: TestBackend) -> None:
    url = await stored(t)
    for method in ("POST", "PUT", "DELETE"):
        assert (await t.fetch(url, method=method)).status_code == 405


async def test_content_that_is_lost_is_told_and_logged(t: TestBackend, caplog: pytest.LogCaptureFixture) -> None:
    url = await stored(t)
    kept(t)[0].unlink()
    failed = await t.fetch(url)
    assert (failed.status_code, failed.json()["code"]) == (500, "InternalServerError")
    assert "cannot be read" in caplog.text


async def test_a_client_that_takes_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, upload_idle_s=0.05)) as t:
        url = await stored(t, bytes(1_000_000))
        sent: list[Any] = []

        async def silent() -> dict[str, Any]:
            return await asyncio.Future()

        async def stuck(message: Any) -> None:
            sent.append(message)
            if len(sent) > 1:
                await asyncio.Event().wait()

        scope = {"type": "http", "method": "GET", "path": urlsplit(url).path, "query_string": b"", "headers": []}
        await asyncio.wait_for(t._server(scope, silent, stuck), 10)
        assert len(sent) == 2 and sent[1]["more_body"]
        assert "was dropped" in caplog.text


# --- browsers


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("image/png", True),
        ("IMAGE/JPEG", True),
        ("video/mp4", True),
        ("text/plain; charset=utf-8", True),
        ("application/pdf", True),
        ("image/svg+xml", False),
        ("text/html", False),
        ("application/xhtml+xml", False),
        ("text/javascript", False),
        ("application/octet-stream", False),
        ("application/pdf, text/html", False),
        ("image/png,text/html", False),
        ("", False),
    ],
)
async def test_what_could_run_in_a_browser_is_saved_and_nothing_runs(t: TestBackend, kind: str, shown: bool) -> None:
    headers = (await t.fetch(await stored(t, content_type=kind))).headers
    assert headers["content-disposition"] == ("inline" if shown else "attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert ("sandbox" in headers.get("content-security-policy", "")) == (kind != "application/pdf")


async def test_pages_of_other_origins_may_send_and_get(t: TestBackend) -> None:
    url = await t.mutation("files:upload_url")
    asked = {"origin": "https://page.invalid", "access-control-request-headers": "content-type,digest"}
    preflight = await t.fetch(url, method="OPTIONS", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://page.invalid"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "content-type,digest"
    origin = {"origin": "https://page.invalid"}
    sent = await t.fetch(url, method="POST", content=TEN, headers=origin)
    got = await t.fetch(await t.query("files:url", id=sent.json()["storageId"]), headers=origin)
    refused = await t.fetch("/api/storage/x", headers=origin)
    for answer in (sent, got, refused):
        assert answer.headers["access-control-allow-origin"] == "https://page.invalid"
        assert answer.headers["access-control-allow-credentials"] == "true"


async def test_content_is_streamed_as_it_comes(t: TestBackend) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(50_000)

    transport = httpx.ASGITransport(app=t._server)
    async with httpx.AsyncClient(transport=transport, base_url="http://test.invalid") as client:
        answer = await client.post(await t.mutation("files:upload_url"), content=chunks())
    assert answer.status_code == 200
    assert (await t.query("files:newest"))["size"] == 5_000_000
