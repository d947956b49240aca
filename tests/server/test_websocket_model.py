"""Clients in any order of what clients do, over the real engine: they see one snapshot after another, and each write once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reactor.testing import TestBackend
from tests.server.gates import turns
from tests.server.support import ADMIN_KEY, socket
from tests.support.examples import examples
from tests.support.sockets import Socket, ts_of, ts_text

pytestmark = pytest.mark.anyio

LISTS = ("left", "right")  # everything is written to both in one mutation


class Client:
    """One client over its connections, as the official ones are: what is not completed is sent again after a reconnect.

    Args:
        buffer: frames that the network takes before it reads.
        direct: whether the server has its extension.
        query: what it watches.
    """

    def __init__(self, t: TestBackend, buffer: int, direct: bool, query: str) -> None:
        self._t = t
        self._buffer = buffer
        self._direct = direct
        self._query = query
        self.socket = socket(t, buffer=buffer, direct=direct)
        self.watched: list[str] = []
        self.written: dict[int, str] = {}  # each mutation that is not completed
        self._texts: dict[str, int] = {}  # the query id of each list watched
        self._observed = 0
        self._resent: set[int] = set()
        self.subject: str | None = None

    async def open(self) -> None:
        await self.socket.__aenter__()

    def write(self, text: str) -> None:
        self.written[self.socket.mutate("notes:add_to", lists=LISTS, text=text)] = text

    def fail(self) -> None:
        self.socket.mutate("failing:refuses", data="no")

    def act(self) -> None:
        self.socket.act("notes:add_all", list="actions", texts=["x"])

    def watch(self) -> None:
        for name in LISTS:
            if name not in self._texts:
                self._texts[name] = self.socket.subscribe(self._query, list=name)
                return

    def leave_off(self) -> None:
        if self._texts:
            self.socket.unsubscribe(self._texts.pop(min(self._texts)))

    def sign_in(self) -> None:
        self.subject = None if self.subject else "ann"
        self._authenticate()

    def _authenticate(self) -> None:
        if self.subject is None:
            self.socket.authenticate("None")
        else:
            self.socket.authenticate("Admin", ADMIN_KEY, impersonating={"subject": self.subject})

    async def read(self, number: int) -> None:
        """One message, if there is one after a while."""
        await turns(number % 20)
        if self.socket.unread:
            await self._receive()

    async def reconnect(self) -> None:
        old, watched = self.socket, sorted(self._texts)
        self._observed = max(
            self._observed, old.version[2], *(ts_of(a["ts"]) for a in old.responses.values() if a["type"][0] == "M" and a["ts"]), 0
        )
        await old.leave()
        self.socket = Socket(self._t._server, session=None, buffer=self._buffer, direct=self._direct)
        self.socket.session = old.session
        self.socket._requests = old._requests
        await self.open()
        self.socket.connect(connectionCount=1, maxObservedTimestamp=ts_text(self._observed))
        if self.subject is not None:
            self._authenticate()
        self._texts = {name: self.socket.subscribe(self._query, list=name) for name in watched}
        self._resent |= set(self.written)
        for request, text in self.written.items():
            self.socket.mutate("notes:add_to", request=request, lists=LISTS, text=text)

    async def settle(self) -> None:
        while not self._settled():
            await self._receive()

    async def learn(self, known: dict[str, Any]) -> None:
        """Until the lists are these; ``receive`` fails when nothing comes any more."""
        await self.settle()
        while self.known() != known:
            await self._receive()

    def _settled(self) -> bool:
        s = self.socket
        return s.version[:2] == (s.query_set, s.identity) and not s._outstanding and not s._acting and not s._uncovered()

    async def _receive(self) -> None:
        message = await self.socket.receive()
        if message["type"] == "MutationResponse" and message["success"] and message["requestId"] not in self._resent:
            assert ts_of(message["ts"]) > self.socket.version[2], "a transition that covers a mutation came before its answer"
        self._check()

    def _check(self) -> None:
        for request in list(self.written):
            answer = self.socket.responses.get(request)
            if answer is not None:
                assert answer["success"] and answer["result"] == self.written[request]
                if ts_of(answer["ts"]) <= self.socket.version[2]:
                    # Completed: the client never sends it again, and sees its effect from now on.
                    text = self.written.pop(request)
                    assert all(text in value["texts"] for value in self.known().values())
        assert self.socket.version[2] == 0 or self.socket.version[2] >= self._observed
        left, right = (self.known().get(name) for name in LISTS)
        assert left is None or right is None or left == right, "the two lists are always written together"
        assert left is None or self.socket.version[1] != self.socket.identity or left["who"] == self.subject

    def known(self) -> dict[str, Any]:
        results = self.socket.results
        found = {name: results[query_id]["value"] for name, query_id in self._texts.items() if query_id in results}
        # Mutations that run beside each other, while the clock stands, come in the order of their ids: another one in each list.
        return {name: value | {"texts": sorted(value["texts"])} for name, value in found.items()}


Step: TypeAlias = "Callable[[Client, int], Any]"
STEPS: list[Step] = [
    lambda client, number: client.write(str(number)),
    lambda client, number: client.watch(),
    lambda client, number: client.read(number),
    lambda client, number: client.leave_off(),
    lambda client, number: client.reconnect(),
    lambda client, number: client.sign_in(),
    lambda client, number: client.fail(),
    lambda client, number: client.act(),
]
NAMES = ("write", "watch", "read", "leave off", "reconnect", "sign in", "fail", "act")
steps = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(NAMES)), max_size=40)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps, st.sampled_from([0, 1, 2]), st.booleans(), st.sampled_from(["gated:slowly", "gated:at_once"]))
async def test_clients_see_snapshots_and_every_write_happens_once(
    t: TestBackend, done: list[tuple[int, str]], buffer: int, direct: bool, query: str
) -> None:
    for name in (*LISTS, "actions"):
        await t.mutation("notes:clear", list=name)
    clients = [Client(t, 0, direct, query), Client(t, buffer, direct, query)]
    for client in clients:
        await client.open()
    for number, (who, name) in enumerate(done):
        result = STEPS[NAMES.index(name)](clients[who], number)
        if result is not None:
            await result
    for client in clients:
        await client.settle()
    texts = await t.query("notes:texts", list="left")
    assert sorted(texts) == sorted(str(number) for number, (_, name) in enumerate(done) if name == "write")
    for client in clients:
        client.watch()
        client.watch()
        value = {"texts": sorted(texts), "who": client.subject}
        await client.learn({"left": value, "right": value})
        await client.socket.leave()
    assert not len(t._engine.live)
    t._engine.live.check_invariants()
