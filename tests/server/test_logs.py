"""What the server prints."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reactor.engine.transaction import Usage
from reactor.errors import AppError, SchemaError
from reactor.functions.outcome import ErrorReport, RunRecord
from reactor.server import logs as module
from reactor.server.logs import Logs, console_logging
from tests.support.waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what is printed, whatever the store")]


class Terminal:
    """A stream, and what was written to it."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._bytes = io.BytesIO()
        self.encoding = encoding
        self.stream = io.TextIOWrapper(self._bytes, encoding=encoding)

    def text(self) -> str:
        self.stream.flush()
        return self._bytes.getvalue().decode(self.encoding)


def record(**changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "time_ns": 1_767_225_600_000_000_000,
        "request_id": "0123456789abcdef",
        "path": "notes:add",
        "kind": "mutation",
        "ok": True,
        "duration_s": 0.0042,
        "error": None,
        "log_lines": (),
        "usage": None,
        "attempts": 1,
        "origin": "sync",
    }
    return RunRecord(**fields | changes)


def failure(exception: Exception) -> ErrorReport:
    try:
        raise exception
    except Exception as error:
        return ErrorReport("message", "body", None, getattr(error, "code", "FunctionError"), error)


async def written(*records: RunRecord, machine: bool, folder: Path | None = None, encoding: str = "utf-8") -> str:
    terminal = Terminal(encoding)
    logs = Logs(terminal.stream, machine=machine, folder=folder)
    for each in records:
        logs.run(each)
    logs.close()
    return terminal.text()


async def test_what_a_caller_writes_does_nothing_to_a_terminal() -> None:
    evil = "a\x1b]0;title\x07\r\x9b31m"
    printed = await written(
        record(path=f"{evil}\nsecond:line", ok=False, error=failure(ValueError(evil)), log_lines=(f"[LOG] {evil}",)), machine=False
    )
    terminal = Terminal()
    logs = Logs(terminal.stream, machine=False)
    logs.say(f"{evil}\nsecond line")
    logs.close()
    printed += terminal.text()
    assert not set(printed) & {"\x1b", "\x07", "\r", "\x9b"}
    assert printed.count("a\\x1b]0;title\\x07\\x0d\\x9b31m") == 4
    assert "\\nsecond:line" in printed and "\nsecond line\n" in printed


async def test_a_run_is_a_line_with_time_kind_path_duration_reads_writes_and_request() -> None:
    usage = Usage(documents_read=3, bytes_read=420, documents_written=1, bytes_written=12_345)
    only_read = Usage(documents_read=1, bytes_read=99)
    written_one, read_one, action = (
        await written(record(usage=usage), record(kind="query", usage=only_read, cached=True), record(kind="action"), machine=False)
    ).splitlines()
    clock = time.strftime("%H:%M:%S", time.localtime(1_767_225_600))
    assert written_one == f"{clock} mutation notes:add 4.2 ms read 3 (420 B), wrote 1 (12.3 kB) [0123456789abcdef]"
    assert read_one == f"{clock} query    notes:add 4.2 ms read 1 (99 B) cached [0123456789abcdef]"
    assert action == f"{clock} action   notes:add 4.2 ms [0123456789abcdef]"


async def test_what_a_run_printed_and_its_attempts_are_shown() -> None:
    text = await written(record(log_lines=("[LOG] 'a'", "[WARN] 'b'"), attempts=3, duration_s=1.5), machine=False)
    assert "notes:add 1.50 s after 3 attempts [0123456789abcdef]\n         [LOG] 'a'\n         [WARN] 'b'\n" in text


async def test_an_error_is_shown_with_its_request_and_where_in_the_app_it_was_raised() -> None:
    text = await written(record(ok=False, error=failure(ValueError("no"))), machine=False, folder=Path(__file__).parent)
    assert "ValueError: no [0123456789abcdef]" in text
    assert "at failure (test_logs.py:" in text


async def test_an_application_error_is_shown_without_a_trace() -> None:
    text = await written(record(ok=False, error=failure(AppError("full"))), machine=False)
    assert "AppError: full" in text and " at " not in text


async def test_in_production_a_line_is_one_json_object() -> None:
    usage = Usage()
    usage.documents_read = 2
    runs = [
        record(),
        record(attempts=2, usage=usage, log_lines=("[LOG] 'two\nlines'",)),
        record(ok=False, error=failure(SchemaError("bad"))),
        record(ok=False, error=failure(AppError({"a": 1})), path="lone \ud800"),
    ]
    lines = [json.loads(line) for line in (await written(*runs, machine=True)).splitlines()]
    assert lines[0] == {
        "time": 1767225600.0,
        "level": "info",
        "message": "run",
        "request_id": "0123456789abcdef",
        "kind": "mutation",
        "path": "notes:add",
        "origin": "sync",
        "ok": True,
        "duration_ms": 4.2,
        "attempts": 1,
        "cached": False,
    }
    assert lines[1]["attempts"] == 2 and lines[1]["usage"]["documents_read"] == 2 and lines[1]["log_lines"] == ["[LOG] 'two\nlines'"]
    assert lines[2]["level"] == "error" and lines[2]["error"]["text"] == "SchemaError: bad"
    assert lines[3]["error"]["trace"] == [] and lines[3]["path"] == "lone \ud800"


async def test_what_the_stream_cannot_take_is_escaped() -> None:
    assert "caf\\xe9 \\ud800" in await written(record(path="café \ud800"), machine=False, encoding="ascii")


async def test_lines_come_without_being_waited_for() -> None:
    terminal = Terminal()
    logs = Logs(terminal.stream, machine=False)
    logs.run(record())
    assert terminal.text() == "", "a run costs no writing in its own turn"
    await eventually_async(lambda: "notes:add" in terminal.text(), "the line")
    logs.close()


async def test_the_order_of_runs_is_kept_however_many_there_are() -> None:
    text = await written(*(record(path=f"n:{number}") for number in range(1000)), machine=False)
    assert [line.split()[2] for line in text.splitlines()] == [f"n:{number}" for number in range(1000)]


def test_messages_have_a_level_and_come_from_any_thread() -> None:
    terminal = Terminal()
    logs = Logs(terminal.stream, machine=True)
    thread = threading.Thread(target=logs.say, args=("from a thread", "warning"))
    thread.start()
    thread.join()
    logs.say("plain")
    logs.close()
    assert [(line["level"], line["message"]) for line in map(json.loads, terminal.text().splitlines())] == [
        ("warning", "from a thread"),
        ("info", "plain"),
    ]


def test_a_stream_that_nobody_reads_holds_up_nobody_and_what_it_missed_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 100_000)
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream, open(reading, encoding="utf-8") as reader:
        logs = Logs(stream, machine=False)
        started = time.monotonic()
        for number in range(20_000):
            logs.say(f"{number} {'x' * 100}")
        assert time.monotonic() - started < 5
        assert logs._writer._waiting_bytes <= 100_000
        seen = []
        while logs._writer._waiting_bytes:
            seen.append(reader.readline())
        logs.say("the end")
        while "the end" not in (line := reader.readline()):
            seen.append(line)
        assert seen[0].split()[1] == "0"
        shown, missed = [line for line in seen if "xxx" in line], [line for line in seen if "were not shown" in line]
        assert len(shown) + sum(int(line.split()[0].lstrip("(")) for line in missed) == 20_000
        logs.close()


def test_a_close_with_a_stream_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.05)
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "w", encoding="utf-8") as stream:
        logs = Logs(stream, machine=False)
        logs.say("x" * 1_000_000)
        logs.close()
        assert logs._writer._thread.is_alive()
        assert reader.read(1_000_000)
        logs._writer._thread.join(10)
        assert not logs._writer._thread.is_alive()


def test_a_stream_that_is_closed_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = open(writing, "w", encoding="utf-8")
    logs = Logs(stream, machine=False)
    logs.say("lost")
    logs._writer._thread.join(10)
    logs.say("lost too")
    logs.close()
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_warnings_of_libraries_are_shown_and_only_inside() -> None:
    terminal = Terminal()
    logs = Logs(terminal.stream, machine=False)
    library = logging.getLogger("a.library")
    with console_logging(logs):
        library.info("not this")
        library.warning("be %s", "warned")
        try:
            raise ValueError("inner")
        except ValueError:
            library.exception("failed")
    library.warning("nor this")
    logs.close()
    text = terminal.text()
    assert "a.library: be warned" in text and "a.library: failed" in text and "ValueError: inner" in text
    assert "this" not in text
