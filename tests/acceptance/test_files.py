"""Large files through a real server: in memory no more than blocks of them, and nothing left of what broke off.

With ``REACTOR_TEST_LONG`` the large file has 2 GiB.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import apsw
import httpx
import pytest

from tests.support.s3 import S3, s3_server
from tests.support.server import Server
from tests.support.waiting import eventually

MIB = 1024 * 1024
LARGE_MIB = 2048 if os.environ.get("REACTOR_TEST_LONG") else 256
MOST_ABOVE_IDLE = 150 * 10**6


def call(server: Server, kind: str, path: str, **args: object) -> Any:
    body = {"path": path, "args": args, "format": "json"}
    answer = httpx.post(f"{server.url}/api/{kind}", json=body, trust_env=False, verify=False).json()
    assert answer["status"] == "success", answer
    return answer["value"]


def pattern(mebibytes: int) -> Iterator[bytes]:
    """A content of this size, no two blocks the same."""
    for number in range(mebibytes):
        yield number.to_bytes(8, "big") * (MIB // 8)


def resident(server: Server) -> int:
    """The memory that the server's process has now, in bytes."""
    assert server.process is not None
    return status_bytes(server.process.pid, "VmRSS")


def peak(server: Server) -> int:
    """The most that it ever had."""
    assert server.process is not None
    return status_bytes(server.process.pid, "VmHWM")


def status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"there is no {name}")


def send(server: Server, mebibytes: int) -> tuple[str, str]:
    """Upload; the file's id and the SHA-256 of what was sent."""
    digest = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        for block in pattern(mebibytes):
            digest.update(block)
            yield block

    url = urlsplit(call(server, "mutation", "files:upload_url"))
    connection = http.client.HTTPConnection(url.netloc, timeout=120)
    connection.request("POST", f"{url.path}?{url.query}", body=blocks(), headers={"Content-Length": str(mebibytes * MIB)})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    connection.close()
    return httpx.Response(200, content=body).json()["storageId"], digest.hexdigest()


def get(server: Server, id: str) -> str:
    """Download; the SHA-256 of what came."""
    digest = hashlib.sha256()
    with httpx.stream("GET", call(server, "query", "files:url", id=id), trust_env=False, timeout=120) as answer:
        assert answer.status_code == 200
        for block in answer.iter_raw(MIB):
            digest.update(block)
    return digest.hexdigest()


def kept(folder: Path) -> list[Path]:
    return [file for file in (folder / "test.db-files").rglob("*") if file.is_file()]


def known(folder: Path) -> int:
    """How many contents the database knows of, complete or not."""
    connection = apsw.Connection(str(folder / "test.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(connection.execute("SELECT count(*) FROM _storage_blobs").get)
    finally:
        connection.close()


def begin(server: Server) -> socket.socket:
    """An upload of which only a part was sent."""
    url = urlsplit(call(server, "mutation", "files:upload_url"))
    assert url.hostname and url.port
    connection = socket.create_connection((url.hostname, url.port), timeout=20)
    head = f"POST {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {10 * MIB}\r\n\r\n"
    connection.sendall(head.encode() + bytes(3 * MIB))
    return connection


def test_a_large_file_goes_in_and_out_without_being_held_in_memory(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        get(server, send(server, 1)[0])
        idle = resident(server)
        id, sent = send(server, LARGE_MIB)
        assert get(server, id) == sent
        above = peak(server) - idle
        print(f"{LARGE_MIB} MiB: {above / 1e6:.1f} MB above idle")
        assert above < MOST_ABOVE_IDLE
        assert sum(file.stat().st_size for file in kept(tmp_path)) == (LARGE_MIB + 1) * MIB


def test_an_upload_whose_client_leaves_leaves_nothing(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        connection = begin(server)
        eventually(lambda: kept(tmp_path) and kept(tmp_path)[0].stat().st_size > MIB, "the first bytes")
        connection.close()
        eventually(lambda: not kept(tmp_path) and known(tmp_path) == 0, "the rest to be gone")


def test_an_upload_that_a_kill_cuts_off_leaves_nothing_after_the_restart(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        id, sent = send(server, 2)
        connection = begin(server)
        eventually(lambda: len(kept(tmp_path)) == 2, "the first bytes")
        server.kill()
        connection.close()
        assert len(kept(tmp_path)) == 2
        server.start()
        eventually(lambda: len(kept(tmp_path)) == 1 and known(tmp_path) == 1, "the rest to be collected")
        assert get(server, id) == sent


def test_a_file_that_was_deleted_before_a_kill_is_collected_after_it(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        id, _ = send(server, 1)
        call(server, "mutation", "files:remove", id=id)
        server.kill()
        server.start()
        eventually(lambda: not kept(tmp_path) and known(tmp_path) == 0, "the content to be collected")


@pytest.fixture
def s3() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


def test_files_in_a_bucket(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REACTOR_FILES", f"s3://{s3.bucket}/app")
    with Server(tmp_path) as server:
        get(server, send(server, 1)[0])
        idle = resident(server)
        id, sent = send(server, 64)
        assert get(server, id) == sent
        assert peak(server) - idle < MOST_ABOVE_IDLE
        assert len(s3.keys()) == 2 and all(key.startswith("app/") for key in s3.keys())
        connection = begin(server)
        eventually(lambda: known(tmp_path) == 3, "an upload to begin")
        connection.close()
        eventually(lambda: known(tmp_path) == 2, "the rest to be gone")
        assert len(s3.keys()) == 2 and s3.parts() == []
        assert kept(tmp_path) == []


@pytest.mark.parametrize("files", ["s3://", "ftp://host/files"])
def test_a_place_for_files_that_is_none_is_told_at_the_start(tmp_path: Path, files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REACTOR_FILES", files)
    server = Server(tmp_path)
    ended = subprocess.run(server.arguments, cwd=server.app, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "Files cannot be kept at" in ended.stderr and "Traceback" not in ended.stderr
