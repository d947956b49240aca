"""One client over one WebSocket: deadlines, backpressure, and what it is owed. The protocol's rules are in ``reactor.protocol``."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from reactor.engine.eager import start
from reactor.engine.live_query import Cause, Subscription
from reactor.engine.snapshot import Pin
from reactor.engine.store import RequestKey
from reactor.errors import AuthenticationError, ProtocolError, SchemaOutdated, StoreError, StoreUnavailable
from reactor.functions.identity import Caller
from reactor.functions.outcome import Outcome
from reactor.protocol import server_messages as wire
from reactor.protocol.client_messages import (
    Action,
    Authenticate,
    ClientMessage,
    Connect,
    ModifyQuerySet,
    Mutation,
    decode_client_message,
)
from reactor.protocol.client_version import ClientVersion
from reactor.protocol.session import Overload, Query, Round, Session, Step
from reactor.server.admin import ANONYMOUS, Credentials
from reactor.server.passes import BREATH_S, Awaited, Moment, Shared
from reactor.server.uvicorn_socket import FRAGMENT_BYTES, WebSocketProtocol, begin_text
from reactor.services.auth.fetching import UNREACHABLE

__all__ = ["Connection"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("reactor.websocket")

#: What a held message takes besides its text.
_HELD_BYTES = 100
CATCH_UP_AGAIN_S = 0.5
#: How long the mutations in the queue of a client that has sent too much may take to run and be answered before it is closed. It sends
#: all that is not answered again, and would never come to an end if it were closed at once.
RUN_OUT_S = 2.0
#: Beginnings of one transition's frame that are kept: clients' clocks are off by as many digits.
_BEGUN = 8


class _Closed(Exception):
    """The connection is to be closed with this code and reason; without a code after an error message."""

    def __init__(self, code: int, reason: str, frame: bytes | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.frame = frame  # sent before closing


def _note(error: Exception) -> None:
    """Log why a connection is closed: the database was away for too long, or a bug of ours."""
    if isinstance(error, StoreUnavailable):
        _log.warning("A connection is closed, and its client comes again: %s", error)
    else:
        _log.error("a connection failed", exc_info=error)


def _heed(result: asyncio.Future[Any]) -> None:
    """Have asyncio not complain that nobody asked how it failed."""
    if not result.cancelled():
        result.exception()


class _Watch:
    """One query's watcher: tells its connection which of its queries is stale."""

    __slots__ = ("_connection", "_query")

    def __init__(self, connection: Connection, query: Query[Outcome]) -> None:
        self._connection = connection
        self._query = query

    def invalidated(self, subscription: Subscription[Any]) -> None:
        connection = self._connection
        session = connection.session
        if session.stale is None:
            session.stale = self._query  # as ``invalidated`` does: without a call for each of many
        else:
            session.invalidated(self._query)
        due = connection._shared.due
        if due and connection._quick:
            due[connection] = None  # as ``wake`` does
        elif connection._awaited is None or connection._awaited[1] is not self._query:
            connection.wake()


def _size_bytes(message: Mutation | Action) -> int:
    return len(message.path) + len(message.args)


@dataclass(slots=True)
class _Waiting:
    """A round some of whose queries suspend, or take longer than a connection may have at a time. Holds ``pin``.

    Attributes:
        rest: the queries that have not been asked yet.
    """

    round: Round[Outcome]
    results: list[tuple[Query[Outcome], Outcome | asyncio.Future[Outcome]]]
    rest: deque[Query[Outcome]]
    pin: Pin


class Connection:
    """One connection. Nothing of it runs between events but, where something must be waited for, one task that sends.

    Args:
        direct: the socket, where the server has the extension.
    """

    __slots__ = (
        "_accepting",
        "_awaited",
        "_caller",
        "_catching_up",
        "_caught_up",
        "_client",
        "_closing",
        "_deadline",
        "_direct",
        "_ended",
        "_handed",
        "_held",
        "_held_bytes",
        "_least_ts",
        "_mutating",
        "_mutations",
        "_overload",
        "_ping_due",
        "_quick",
        "_room",
        "_send",
        "_sending",
        "_sent_at",
        "_session_id",
        "_shared",
        "_shown",
        "_timer",
        "_verifying",
        "_whole_bytes",
        "_woken",
        "session",
    )

    def __init__(self, shared: Shared, client: ClientVersion | None, send: Send, direct: WebSocketProtocol | None) -> None:
        self._shared = shared
        self._client = client
        self._send = send
        self._direct = direct
        self._whole_bytes = shared.limits.sent_frame_size_bytes
        self._session_id: str | None = None
        self._caller = Caller(origin="sync", request_id=shared.runtime.random_bytes(8).hex())
        self._shown = ANONYMOUS
        self._verifying: asyncio.Task[Credentials] | None = None
        self._held: list[str | bytes] = []  # what was received since, by whom is not known yet
        self._held_bytes = 0
        self._mutations: deque[tuple[Mutation, Caller, int]] = deque()
        self._mutating = False
        self._room: asyncio.Future[None] | None = None  # resolved when the client has taken answers, while mutations wait for that
        self._accepting = True
        self._ended = False
        self._closing: _Closed | None = None
        self._overload: _Closed | None = None  # to be closed with once no mutation is in the queue
        self._deadline = asyncio.timeout(None)  # set once it is to be closed
        self._sending: asyncio.Task[None] | None = None
        self._handed: _Waiting | None = None  # to that task, which has not begun: cancelled then, it never would
        self._woken: asyncio.Future[None] | None = None  # resolved by ``wake`` while a round waits
        self._sent_at = shared.runtime.monotonic_s()
        self._ping_due = False
        self._least_ts = 0  # what the client has seen elsewhere
        self._caught_up = shared.engine.alone  # since it was opened: it shows all that was committed before
        self._catching_up = False
        # Whether a transition can be owed for a dirty query only, and sent at once: set by a round, ended by whatever else happens.
        self._quick = False
        self._awaited: tuple[Awaited, Query[Outcome]] | None = None  # of a round that began when it was quick
        self.session: Session[Outcome] = Session(shared.limits)

    async def serve(self, receive: Receive) -> None:
        """Read until the client goes or is closed."""
        self._timer = asyncio.get_running_loop().call_later(self._shared.limits.ping_after_s, self._tick)
        try:
            async with self._deadline:
                if self._direct is not None:
                    self._direct.deliver_to(self._receive)
                while True:
                    event = await receive()
                    if event["type"] == "websocket.disconnect":
                        return
                    self._receive(event.get("text") or event.get("bytes") or "")
        except TimeoutError:
            pass  # it does not take its last frames
        finally:
            self._ended = True
            self._quick = False
            self._awaited = None
            self._timer.cancel()
            if self._verifying is not None:
                self._verifying.cancel()
            self._mutations.clear()
            self._make_room()
            self._closing = self._closing or _Closed(1000, "")
            for query in (*self.session.queries.values(), *self.session.lost):
                # One of a message that was refused halfway has none.
                if query.subscription is not None:
                    query.subscription.close()
            self.session.queries.clear()
            if self._sending is not None:
                self._sending.cancel()
            if self._handed is not None:
                self._handed.pin.release()
                self._handed = None

    def accept_nothing(self) -> None:
        """Ignore what the client sends from now on: it sends it again to whoever serves it next."""
        self._accepting = False

    def finish(self, code: int, reason: str) -> asyncio.Task[None] | None:
        """Close after what is owed was sent."""
        if self._ended:
            return None
        self._close(_Closed(code, reason))
        if self._sending is None:
            self._send_later(self._responses(), None)
        return self._sending

    # --- reading

    def _receive(self, frame: str | bytes) -> None:
        if self._ended or self._closing is not None or not self._accepting:
            return
        if self._verifying is not None:
            self._hold(frame)
            return
        try:
            self._take(decode_client_message(frame))
        except ProtocolError as error:
            self._close(_Closed(1000, "", wire.fatal_error(error.message)))
        except Overload as overload:
            self._close(_Closed(1013, str(overload)))
        except _Closed as closed:
            self._close(closed)
        except Exception as error:
            self.fail(error)
        if self.session.wants_round:
            self.wake()

    def _take(self, message: ClientMessage) -> None:
        if self._shown.proof is not None and not isinstance(message, Authenticate):
            # Nothing is done for an identity that ceased to hold: the client gets a new token and asks again.
            self._close_if_identity_ended()
            if self._closing is not None:
                return
        if isinstance(message, Mutation):
            size_bytes = _size_bytes(message)
            try:
                self.session.begin_mutation(size_bytes)
            except Overload as overload:
                self._close_after_mutations(_Closed(1013, str(overload)))
                return
            self._mutations.append((message, self._caller, size_bytes))
            if not self._mutating:
                self._mutating = True
                self._shared.work.start(self._mutate())
        elif isinstance(message, ModifyQuerySet):
            added, removed = self.session.modify(message)
            for query in removed:
                if query.subscription is not None:
                    query.subscription.close()
            for query in added:
                self._subscribe(query)
        elif isinstance(message, Action):
            self.session.begin_action()
            self.session.hold(_size_bytes(message))
            # A task from its first step on: what reaches the outside world may ask for the one it runs in.
            self._shared.work.add(asyncio.ensure_future(self._act(message, self._caller)))
        elif isinstance(message, Connect):
            self._connect(message)
        elif isinstance(message, Authenticate):
            self._authenticate(message)

    def _connect(self, message: Connect) -> None:
        self._session_id = message.session
        if message.client_ms is not None:
            self.session.tail = wire.tail(message.client_ms - self._shared.runtime.now_ns() // 1_000_000)
        # It has shown a state as of this ts, perhaps of another node, and must never see an older one.
        self._least_ts = message.max_observed_ts or 0
        self._quick = False
        if self._least_ts > self._shared.engine.head_ts:
            self._begin_to_catch_up()

    def _subscribe(self, query: Query[Outcome], cause: Cause | None = None) -> None:
        runner, caller = self._shared.runner, self._caller
        query.subscription = self._shared.engine.live.subscribe(
            runner.live_key(query.path, query.args, caller),
            caller.identity,
            runner.live_run(query.path, query.args, caller),
            _Watch(self, query),
            journal=query.journal,
            cause=cause,
        )

    def _subscribe_anew(self) -> None:
        """Watch every query as who the client is now. Not for each change: a client may send thousands, and have as many queries."""
        for query in self.session.queries.values():
            # In this order: a result that did not look at the identity is shared, and must not go with its last watcher.
            before = query.subscription
            self._subscribe(query, "identity")
            before.close()

    def _authenticate(self, message: Authenticate) -> None:
        self.session.check_identity_version(message)
        authenticator = self._shared.authenticator
        try:
            if message.kind == "User":
                shown = start(authenticator.user(message.token or ""))
                if isinstance(shown, asyncio.Task):
                    # Its provider is asked for keys. What comes meanwhile waits: it is by whom the token names.
                    self._verifying = shown
                    shown.add_done_callback(partial(self._verified, message))
                    return
            elif message.kind == "Admin":
                shown = authenticator.admin(message.token or "", message.acting_as)
            else:
                shown = ANONYMOUS
        except AuthenticationError as error:
            raise self._refused(error, update_attempted=True) from None
        self._become(message, shown)

    def _hold(self, frame: str | bytes) -> None:
        self._held.append(frame)
        self._held_bytes += len(frame) + _HELD_BYTES
        if self._held_bytes > self._shared.limits.frame_size_bytes:
            self._held = []
            self._close(_Closed(1013, "TooManyConcurrentRequests"))

    def _verified(self, message: Authenticate, verifying: asyncio.Task[Credentials]) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        self._verifying = None
        if verifying.cancelled():
            return
        try:
            shown = verifying.result()
            if not self._ended and self._closing is None:
                self._become(message, shown)
        except AuthenticationError as error:
            self._close(self._refused(error, update_attempted=True))
        except Exception as error:
            self.fail(error)
        for frame in held:
            self._receive(frame)
        self.wake()

    def _refused(self, error: AuthenticationError, *, update_attempted: bool) -> _Closed:
        if error.code == UNREACHABLE:
            # To be told that it is wrong, a client would throw its token away: it comes again with the same one.
            return _Closed(1013, UNREACHABLE)
        return _Closed(1000, "", wire.auth_error(error.message, self.session.sent.identity, update_attempted=update_attempted))

    def _become(self, message: Authenticate, shown: Credentials) -> None:
        self._shown = shown
        self._quick = False
        self._caller = Caller(shown.identity, shown.admin, self._caller.request_id, "sync")
        self.session.authenticate(message)

    def _close_if_identity_ended(self) -> None:
        try:
            self._shared.authenticator.check(self._shown)
        except AuthenticationError as error:
            self._close(self._refused(error, update_attempted=False))

    # --- running

    def _close_after_mutations(self, closing: _Closed) -> None:
        """Take nothing more, and close once what was taken is answered, or after a while."""
        if not self._mutating:
            self._close(closing)
            return
        self._accepting = False
        self._overload = closing
        asyncio.get_running_loop().call_later(RUN_OUT_S, self._close, closing)

    async def _mutate(self) -> None:
        """Run the queued mutations, one after another in the order in which they came."""
        try:
            while self._mutations:
                if self.session.is_full:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
                    continue
                message, caller, size_bytes = self._mutations.popleft()
                self.session.let_go(size_bytes)
                request = None if self._session_id is None else RequestKey(self._session_id, message.request_id)
                answered = False

                def durable(outcome: Outcome, message: Mutation = message) -> None:
                    nonlocal answered
                    answered = True
                    self.session.answer_mutation(message.request_id, outcome, outcome.ts)
                    self.wake()

                outcome = await self._shared.runner.mutation(
                    message.path, message.args, self._named(caller, message.request_id), request=request, on_durable=durable
                )
                if outcome.error is not None and isinstance(outcome.error.exception, StoreUnavailable | SchemaOutdated):
                    # Nothing was written, and another node, or this one later, can: the client sends it again when it reconnects.
                    self._mutations.clear()
                    self._close(_Closed(1011, "InternalServerError"))
                elif not answered or request is None:
                    if not answered:
                        durable(outcome)
                    # It may have waited for no commit, and neither may those behind it, which come in the same read.
                    await asyncio.sleep(0)
        finally:
            self._mutating = False
            if self._overload is not None:
                self._close(self._overload)

    async def _act(self, message: Action, caller: Caller) -> None:
        outcome = await self._shared.runner.action(message.path, message.args, self._named(caller, message.request_id))
        self.session.let_go(_size_bytes(message))
        if not self._ended:
            self.session.answer_action(message.request_id, outcome)
            if self.session.is_full:
                self._close(_Closed(1013, "TooManyBytesForSingleClient"))
            self.wake()

    def _named(self, caller: Caller, request_id: int) -> Caller:
        """The caller with the request's own id, which the client can compute too."""
        name = hashlib.sha256(f"{self._session_id}|{request_id}".encode()).hexdigest()[:16]
        return Caller(caller.identity, caller.admin, name, "sync")

    # --- writing

    def wake(self) -> None:
        """The client may be owed something: see to it after this turn of the loop, together with all others."""
        if self._awaited is not None:
            query, self._awaited = self._awaited[1], None
            if self.session.queries.get(query.query_id) is query:
                self.session.invalidated(query)
        if self._sending is None:
            due = self._shared.due
            if not due:
                asyncio.get_running_loop().call_soon(self._shared.flush)
            due[self] = None
        elif self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def flush(self, moment: Moment) -> None:
        """Send what the client is owed at ``moment``; what has to wait is left to a task."""
        session, direct = self.session, self._direct
        try:
            query = session.stale
            if self._quick and query is not None and not session.owed and moment.followed and direct is not None:
                # What nearly all are owed when many are.
                if self._shown.proof is not None:
                    self._close_if_identity_ended()
                    if self._closing is not None:
                        return
                session.stale = None  # before it runs: what comes of that may be stale at once
                subscription: Subscription[Outcome] = query.subscription
                step = session.follow(query, subscription.live, moment.steps)
                if step is None and (result := subscription.now(moment.pin)) is not None:
                    step = self._step(query, result, moment)
                if step is not None:
                    tail = session.tail
                    begun = step.begun.get(len(tail))
                    if begun is not None and direct.send_begun(begun, tail):
                        self._sent_at = moment.monotonic_s
                    else:
                        self._send_step(step, moment, direct)
                    return
                running = subscription.running(moment.pin.ts)
                if running is not None:
                    self._await(query, running, moment)
                    return
                session.invalidated(query)
            if self._sending is not None or self._ended:
                return
            frames, waiting = self._owed(moment)
        except Exception as error:
            self.fail(error)
            return
        if waiting is None and self._closing is None:
            if not frames:
                return
            if direct is not None and direct.send_now(frames):
                self._sent_at = moment.monotonic_s
                self._quick = self._may_be_quick()
                return
        self._send_later(frames, waiting)

    def _step(self, query: Query[Outcome], result: Outcome, moment: Moment) -> Step[Outcome]:
        # Whoever holds the same live query has the same result, unless that is for one identity only.
        source = None if result.identity_used else query.subscription.live
        session, steps = self.session, moment.steps
        return session.follow(query, source, steps) or session.step(query, result, source, moment.pin.ts, moment.server_ns, steps)

    def _send_step(self, step: Step[Outcome], moment: Moment, direct: WebSocketProtocol) -> None:
        tail, begun = self.session.tail, step.begun
        length = len(tail)
        if length not in begun and len(step.head) + length <= min(self._whole_bytes, FRAGMENT_BYTES):
            if len(begun) == _BEGUN:
                begun.clear()
            begun[length] = begin_text(step.head, length)
        if length in begun and direct.send_begun(begun[length], tail):
            self._sent_at = moment.monotonic_s
        else:
            self._send_later(self._chunks(step.head + tail), None)

    def _await(self, query: Query[Outcome], running: asyncio.Future[Outcome], moment: Moment) -> None:
        """Have ``resume`` called once ``running`` ends, together with all who wait for nothing else. ``wake`` ends the wait."""
        awaited = moment.awaited.get(running)
        if awaited is None:
            awaited = moment.awaited[running] = Awaited(self._shared, moment.pin)
            running.add_done_callback(awaited.ended)
        awaited.connections.append(self)
        self._awaited = (awaited, query)
        self._quick = False

    def resume(self, awaited: Awaited, moment: Moment, *, failed: bool) -> None:
        """The run that it waits for has ended, as of ``moment``."""
        if self._awaited is None or self._awaited[0] is not awaited:
            return  # it was woken
        query, self._awaited = self._awaited[1], None
        try:
            self._quick = self._may_be_quick() and not failed
            if self._shown.proof is not None:
                self._close_if_identity_ended()
            result: Outcome | None = query.subscription.known(moment.pin.ts)
            if result is None or not self._quick or self._direct is None:
                self.session.invalidated(query)
            else:
                self._send_step(self._step(query, result, moment), moment, self._direct)
            if self.session.wants_round:
                self.wake()
        except Exception as error:
            self.fail(error)

    def _may_be_quick(self) -> bool:
        return self._caught_up and self.session.sent.ts >= self._least_ts

    def _send_later(self, frames: list[bytes], waiting: _Waiting | None) -> None:
        self._quick = False
        self._handed = waiting
        self._sending = asyncio.ensure_future(self._send_all(frames))

    def fail(self, error: Exception) -> None:
        """The client reconnects to a fresh state, perhaps on another node."""
        if self._closing is None and not self._ended:
            _note(error)
            self._close(_Closed(1011, "InternalServerError"))

    def _owed(self, moment: Moment) -> tuple[list[bytes], _Waiting | None]:
        """The frames that the client is owed at ``moment``, or those that go before a round that has to wait."""
        session = self.session
        # A response whose commit this snapshot shows was queued before the snapshot was taken: it goes first.
        frames = self._responses() if session.responses else []
        wants_round = session.wants_round
        if wants_round and self._shown.proof is not None:
            self._close_if_identity_ended()
        if self._closing is not None:
            return frames, None
        if wants_round and not self._catching_up:
            pin = moment.pin
            # What is older than the client has seen, or may be, waits until this node has caught up with the others.
            if self._caught_up and pin.ts >= self._least_ts and moment.followed:
                if session.anew:
                    self._subscribe_anew()
                round = session.begin_round()
                results = []
                waits = False
                many = len(round.queries) > 1
                until = time.perf_counter() + BREATH_S if many else 0.0
                for query in round.queries:
                    result = query.subscription.at(pin)
                    waits = waits or isinstance(result, asyncio.Future)
                    results.append((query, result))
                    if many and time.perf_counter() > until:
                        break
                if waits or len(results) < len(round.queries):
                    return frames, _Waiting(round, results, deque(round.queries[len(results) :]), pin.retain())
                frame = session.end_round(round, pin.ts, results, moment.server_ns)
                if len(frame) <= self._whole_bytes:
                    frames.append(frame)
                else:
                    frames += self._chunks(frame)
            else:
                self._begin_to_catch_up()
        elif self._ping_due and not frames:
            frames.append(wire.PING)
        self._ping_due = False
        return frames, None

    def _begin_to_catch_up(self) -> None:
        self._catching_up = True
        self._caught_up = self._quick = False
        self._shared.work.add(asyncio.ensure_future(self._catch_up()))

    async def _catch_up(self) -> None:
        engine = self._shared.engine
        while not self._ended:
            try:
                await engine.catch_up()
                break
            except StoreError:
                await self._shared.runtime.sleep(CATCH_UP_AGAIN_S)
        self._catching_up = False
        self._caught_up = True
        if engine.head_ts < self._least_ts:
            # It comes from another database, or this one was set back.
            self._close(_Closed(1011, "InternalServerError"))
        self.wake()

    async def _send_all(self, frames: list[bytes]) -> None:
        """Send ``frames``, then whatever is owed until nothing is; close when told to."""
        waiting, self._handed = self._handed, None
        try:
            while True:
                for frame in frames:
                    await self._frame(frame)
                if waiting is not None:
                    round, waiting = waiting, None
                    frames = await self._settle(round)
                    continue
                if self._closing is not None:
                    self._ended = True
                    await self._end(self._closing)
                    return
                wants_round = self.session.wants_round and not self._catching_up
                if not wants_round and not self.session.responses and not self._ping_due:
                    self._quick = self._may_be_quick()
                    return
                moment = self._shared.now()
                try:
                    frames, waiting = self._owed(moment)
                finally:
                    # Before anything is sent: for a client that does not read, sending waits without an end.
                    moment.pin.release()
        except OSError:
            pass  # the client is gone, which the reader is told too: it ends the connection
        except Exception as error:
            if not self._ended:
                _note(error)
                self._ended = True
                await self._end(_Closed(1011, "InternalServerError"))
        finally:
            self._sending = None
            if waiting is not None:
                waiting.pin.release()

    async def _settle(self, waiting: _Waiting) -> list[bytes]:
        """Ask the queries that are left, and wait for those that suspend; responses do not wait for them. The round's frames, none when it
        is to be closed.
        """
        try:
            while waiting.rest and self._closing is None:
                async with self._shared.asking:
                    self._ask(waiting)
                while self.session.responses:
                    await self._frame(self._response())
                if self._ping_due:
                    self._ping_due = False
                    await self._frame(wire.PING)
                await asyncio.sleep(0)
            running: set[asyncio.Future[Any]] = {result for _, result in waiting.results if isinstance(result, asyncio.Future)}
            while running and self._closing is None:
                if not self.session.responses:  # some may have come since the round began
                    self._woken = asyncio.get_running_loop().create_future()
                    await asyncio.wait({*running, self._woken}, return_when=asyncio.FIRST_COMPLETED)
                    running = {result for result in running if not result.done()}
                while self.session.responses:
                    await self._frame(self._response())
            if self._closing is not None:
                return self._responses()
            settled = [(query, result.result() if isinstance(result, asyncio.Future) else result) for query, result in waiting.results]
            frame = self.session.end_round(waiting.round, waiting.pin.ts, settled, self._shared.runtime.now_ns())
            return self._responses() + self._chunks(frame)
        finally:
            self._woken = None
            for _, outcome in waiting.results:
                if isinstance(outcome, asyncio.Future):
                    outcome.add_done_callback(_heed)  # the first that fails is raised, and enough
            waiting.pin.release()

    def _ask(self, waiting: _Waiting) -> None:
        """As many of its queries as there is time for. Whom they are asked for stays as it was when the round began, until it has ended."""
        until = time.perf_counter() + BREATH_S
        rest = waiting.rest
        while rest:
            query = rest.popleft()
            if self.session.queries.get(query.query_id) is query:
                waiting.results.append((query, query.subscription.at(waiting.pin)))
            if time.perf_counter() > until:
                break

    def _chunks(self, transition: bytes) -> list[bytes]:
        if len(transition) <= self._whole_bytes or self._client is None or not self._client.takes_chunks:
            return [transition]
        return wire.chunks(transition, self._whole_bytes, self.session.next_chunked())

    def _responses(self) -> list[bytes]:
        return [self._response() for _ in range(len(self.session.responses))]

    def _response(self) -> bytes:
        frame = self.session.take_response()
        if self._room is not None and not self.session.is_full:
            self._make_room()
        return frame

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    async def _frame(self, frame: bytes) -> None:
        if self._direct is None or not self._direct.send_now((frame,)):
            # Waits while the socket's buffer is full: that is what makes a slow reader skip states instead of piling them up.
            await self._send({"type": "websocket.send", "text": frame.decode()})
        self._sent_at = self._shared.runtime.monotonic_s()

    async def _end(self, closing: _Closed) -> None:
        if closing.frame is not None:
            await self._frame(closing.frame)
        await self._send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})

    def _close(self, closing: _Closed) -> None:
        if self._closing is None:
            self._closing = closing
            self._quick = False
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._shared.limits.close_timeout_s)
        self.wake()

    def _tick(self) -> None:
        """Every few seconds: is a ping due?"""
        silent_s = self._shared.runtime.monotonic_s() - self._sent_at
        if silent_s >= self._shared.limits.ping_after_s:
            self._ping_due = True
            self._quick = False
            self.wake()
            silent_s = 0.0
        self._timer = asyncio.get_running_loop().call_later(self._shared.limits.ping_after_s - silent_s, self._tick)
