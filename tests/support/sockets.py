"""The sync protocol without a network: an ASGI WebSocket whose client is as strict as the strictest of the official ones.

Every message is checked as it is received (``Socket.receive``), so that whatever a test is about, the rules that no client
forgives are tested with it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

__all__ = ["Closed", "Refused", "Socket", "ts_of", "ts_text"]

Event: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Event, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

NPM = "/api/1.48.0/sync"
WITHIN_S = 10.0


class Closed(Exception):
    """The server closed the connection."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Refused(Exception):
    """The server did not accept the connection."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def ts_of(text: str) -> int:
    return int.from_bytes(base64.b64decode(text, validate=True), "little")


def ts_text(ts: int) -> str:
    return base64.b64encode(ts.to_bytes(8, "little")).decode()


class Socket:
    """One connection. ``async with`` opens it and says Connect; leaving it raises what the server raised.

    Args:
        path, header: where, and who.
        session: None for a connection without Connect.
        buffer: how many frames the network takes before the server has to wait for the reader; 0 for any number.
        direct: with the extension of reactor's own server: messages go by calls.

    Attributes:
        results: the newest modification of each query that has one.
        version: that of the last Transition: query set, identity, ts.
        frames: how many were received.
    """

    def __init__(
        self, app: App, *, path: str = NPM, header: str | None = None, session: str | None = "", buffer: int = 0, direct: bool = False
    ) -> None:
        self._app = app
        self._path = path
        self._headers = [] if header is None else [(b"convex-client", header.encode())]
        self.session = str(uuid.uuid4()) if session == "" else session
        self._in: asyncio.Queue[Event] = asyncio.Queue()
        self._out: asyncio.Queue[Event] = asyncio.Queue(buffer)
        self._gone = False
        self._queries = 0
        self._sets: dict[int, int] = {}  # when each query of the query set was added
        self._outstanding: deque[int] = deque()
        self._acting: set[int] = set()
        self._parts: list[dict[str, Any]] = []
        self._requests = 0
        self.query_set = self.identity = 0
        self.version = (0, 0, 0)
        self.results: dict[int, dict[str, Any]] = {}
        self.responses: dict[int, dict[str, Any]] = {}
        self.frames = 0
        self.chunked = 0
        self._receiver: Callable[[str | bytes], None] | None = None
        self._extensions: dict[str, Any] = {"reactor.direct": self} if direct else {}

    async def __aenter__(self) -> Self:
        scope = {
            "type": "websocket",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "headers": self._headers,
            "extensions": {"websocket.http.response": {}, **self._extensions},
        }
        self._in.put_nowait({"type": "websocket.connect"})
        self._serving = asyncio.ensure_future(self._app(scope, self._in.get, self._send))
        event = await self._next_event()
        if event["type"] == "websocket.http.response.start":
            body = await self._next_event()
            await self._serving
            raise Refused(event["status"], body["body"])
        if event["type"] == "websocket.close":
            await self._serving
            raise Closed(event["code"], event["reason"])
        assert event["type"] == "websocket.accept"
        if self.session is not None:
            self.connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Go away, as a network that breaks."""
        self._gone = True
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1006})
        while not self._out.empty():
            self._out.get_nowait()  # so that nobody waits for a reader
        async with asyncio.timeout(WITHIN_S):
            await self._serving

    # --- the extension, as ``reactor.server.uvicorn_socket`` has it

    def deliver_to(self, receiver: Callable[[str | bytes], None]) -> None:
        self._receiver = receiver
        while not self._in.empty():
            event = self._in.get_nowait()
            receiver(event.get("text") or event["bytes"])

    def send_now(self, messages: Sequence[bytes]) -> bool:
        if self._gone or (self._out.maxsize and self._out.qsize() + len(messages) > self._out.maxsize):
            return False
        for message in messages:
            self._out.put_nowait({"type": "websocket.send", "text": message.decode()})
        return True

    def send_begun(self, begun: bytes, tail: bytes) -> bool:
        self.stepped += 1
        begins = {126: 4, 127: 10}.get(begun[1], 2)
        text = begun[begins:] + tail
        assert int.from_bytes(begun[2:begins] or begun[1:2], "big") == len(text)
        return self.send_now((text,))

    stepped = 0  # transitions whose beginning others shared, or might have; taken or not

    # --- what the client says

    def send(self, **message: Any) -> None:
        self.send_raw(json.dumps(message))

    def send_raw(self, frame: str | bytes) -> None:
        if self._receiver is not None:
            self._receiver(frame)
        else:
            self._in.put_nowait({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})

    def connect(self, **fields: Any) -> None:
        connect = {"type": "Connect", "sessionId": self.session, "connectionCount": 0, "lastCloseReason": "InitialConnect"}
        self.send(**connect | {"clientTs": 0} | fields)

    def modify(self, *modifications: dict[str, Any]) -> None:
        self.send(type="ModifyQuerySet", baseVersion=self.query_set, newVersion=self.query_set + 1, modifications=list(modifications))
        self.query_set += 1

    def subscribe(self, path: str, *, journal: str | None = None, **args: Any) -> int:
        """Add a query. Its id."""
        query_id = self._queries
        self._queries += 1
        resumed = {} if journal is None else {"journal": journal}
        self.modify({"type": "Add", "queryId": query_id, "udfPath": path, "args": [args], **resumed})
        self._sets[query_id] = self.query_set
        return query_id

    def unsubscribe(self, query_id: int) -> None:
        self._sets.pop(query_id, None)  # it may go without ever having had a result
        self.modify({"type": "Remove", "queryId": query_id})

    def mutate(self, path: str, *, request: int | None = None, **args: Any) -> int:
        """Request a mutation. Its request id."""
        request = self._next_request() if request is None else request
        self.send(type="Mutation", requestId=request, udfPath=path, args=[args])
        self._outstanding.append(request)
        return request

    def act(self, path: str, **args: Any) -> int:
        request = self._next_request()
        self.send(type="Action", requestId=request, udfPath=path, args=[args])
        self._acting.add(request)
        return request

    def authenticate(self, kind: str, value: str | None = None, **fields: Any) -> None:
        token = {} if value is None else {"value": value}
        self.send(type="Authenticate", baseVersion=self.identity, tokenType=kind, **token, **fields)
        self.identity += 1

    # --- what the server says

    async def receive(self) -> dict[str, Any]:
        """The next message, checked; a transition in parts as one.

        Raises:
            Closed: there is none any more.
        """
        while True:
            event = await self._next_event()
            if event["type"] == "websocket.close":
                raise Closed(event["code"], event["reason"])
            assert event["type"] == "websocket.send" and event.get("bytes") is None, "frames are text"
            self.frames += 1
            message: dict[str, Any] = json.loads(event["text"])
            if message["type"] == "TransitionChunk":
                self._part(message)
                if message["partNumber"] + 1 < message["totalParts"]:
                    continue
                message = json.loads("".join(part["chunk"] for part in self._parts))
                assert message["type"] == "Transition"
                self._parts = []
            assert not self._parts or message["type"] == "Ping", f"{message['type']} between the parts of a transition"
            self._check(message)
            return message

    async def transition(self) -> dict[str, Any]:
        """The next transition."""
        while (message := await self.receive())["type"] != "Transition":
            pass
        return message

    async def reflected(self) -> None:
        """Until all that was said is in what was received."""
        while self.version[:2] != (self.query_set, self.identity) or self._outstanding or self._acting or self._uncovered():
            await self.receive()

    async def result(self, query_id: int) -> Any:
        """What a query gives now that all that was said is reflected."""
        await self.reflected()
        return self.results[query_id].get("value")

    async def until(self, query_id: int, value: Any) -> None:
        """Until a query gives this."""
        while self.results.get(query_id, {}).get("value") != value:
            await self.receive()

    async def response(self, request: int) -> dict[str, Any]:
        """The answer to a request, once a transition covers it."""
        while request not in self.responses or self._uncovered():
            await self.receive()
        return self.responses[request]

    async def closed(self) -> tuple[int, str, dict[str, Any] | None]:
        """How the server closes the connection: code, reason, and the last message before, if any."""
        last = None
        try:
            while True:
                last = await self.receive()
        except Closed as closed:
            return closed.code, closed.reason, last

    @property
    def unread(self) -> int:
        """Frames that wait for the reader."""
        return self._out.qsize()

    # --- inside

    async def _send(self, event: Event) -> None:
        if self._gone:
            raise OSError("the client is gone")
        await self._out.put(event)
        if event["type"] == "websocket.close":
            self._in.put_nowait({"type": "websocket.disconnect", "code": event["code"]})

    async def _next_event(self) -> Event:
        waiting = asyncio.ensure_future(self._out.get())
        done, _ = await asyncio.wait([waiting, self._serving], timeout=WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            return waiting.result()
        waiting.cancel()
        assert self._serving in done, f"nothing was received for {WITHIN_S:g} s"
        self._serving.result()  # raises what ended it
        raise AssertionError("the server ended the connection without closing it")

    def _next_request(self) -> int:
        self._requests += 1
        return self._requests - 1

    def _uncovered(self) -> bool:
        answers = [ts_of(answer["ts"]) for answer in self.responses.values() if answer.get("ts")]
        return self._owed or max(answers, default=0) > self.version[2]

    _owed = False

    def _part(self, part: dict[str, Any]) -> None:
        self.chunked += 1
        assert part["partNumber"] == len(self._parts) < part["totalParts"]
        for other in self._parts[:1]:
            assert (other["transitionId"], other["totalParts"]) == (part["transitionId"], part["totalParts"])
        self._parts.append(part)

    def _check(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "Transition":
                self._owed = False
                self._check_transition(message)
            case "MutationResponse":
                self._owed = True
                assert message["requestId"] == self._outstanding.popleft(), "answers come once, in order"
                self._check_response(message)
                assert (ts_text(ts_of(message["ts"])) == message["ts"]) if message["success"] else message["ts"] is None
            case "ActionResponse":
                self._owed = True
                self._acting.remove(message["requestId"])
                self._check_response(message)
            case "Ping" | "FatalError" | "AuthError":
                pass
            case other:
                raise AssertionError(f"no client knows {other!r}")

    def _check_response(self, message: dict[str, Any]) -> None:
        assert message["requestId"] not in self.responses
        assert isinstance(message["success"], bool) and "result" in message and isinstance(message["logLines"], list)
        assert not (message["success"] and "errorData" in message)
        self.responses[message["requestId"]] = message

    def _check_transition(self, message: dict[str, Any]) -> None:
        start, end = _version(message["startVersion"]), _version(message["endVersion"])
        assert start == self.version, "a transition starts where the last one ended"
        assert all(after >= before for before, after in zip(start, end, strict=True)), "no part of the version goes back"
        assert end[0] <= self.query_set and end[1] <= self.identity and end[2] < 2**63
        assert type(message["serverTs"]) is int
        assert type(message.get("clientClockSkew", 0)) is int
        changed = [item["queryId"] for item in message["modifications"]]
        assert len(set(changed)) == len(changed), "one modification of a query at most"
        for item in message["modifications"]:
            self._check_modification(item)
        for query_id, added in self._sets.items():
            assert added > end[0] or query_id in self.results, f"query {query_id} is in the query set and has no result"
        self.version = end

    def _check_modification(self, item: dict[str, Any]) -> None:
        self.results[item["queryId"]] = item
        if item["type"] != "QueryRemoved":
            assert item["type"] in ("QueryUpdated", "QueryFailed")
            assert isinstance(item["logLines"], list) and "journal" in item
            assert "value" in item if item["type"] == "QueryUpdated" else isinstance(item["errorMessage"], str)


def _version(version: dict[str, Any]) -> tuple[int, int, int]:
    return version["querySet"], version["identity"], ts_of(version["ts"])
