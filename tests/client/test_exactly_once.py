"""Whatever the network does to the client's messages, each mutation is applied once, in order, and its first result is the one returned."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.client.state import Event, Finished, LiveQuery, Result
from reactor.errors import ConnectionLost
from reactor.protocol.client_messages import Action, Mutation
from reactor.protocol.version import encode_ts
from tests.client.peer import Peer, state_version

pytestmark = pytest.mark.sqlite_only("a client's state, without a server")


class World:
    """A client, a network that may stop anywhere, and a server that counts what it has run."""

    def __init__(self) -> None:
        self.peer = Peer()
        self.query: LiveQuery = self.peer.state.subscribe("counts:get", b"{}")
        self.applied: list[int] = []  # request ids of mutations, in order of their commits, which have ts 1, 2, …
        self.actions: list[int] = []
        self.finished: dict[int, Any] = {}
        self.upward: deque[dict[str, Any]] = deque()
        self.downward: deque[str] = deque()
        self.version = state_version()

    # --- steps

    def mutate(self) -> None:
        self.peer.state.request(Mutation, "counts:add", b"{}")

    def act(self) -> None:
        self.peer.state.request(Action, "counts:act", b"{}")

    def send(self) -> None:
        if not self.peer.state.online:
            self.version = state_version()
            self.peer.state.connected(None, 0)
        frame = self.peer.state.take_frame()
        if frame is not None:
            self.upward.append(json.loads(frame))

    def serve(self) -> None:
        if self.upward:
            message = self.upward.popleft()
            if message["type"] == "ModifyQuerySet":
                self.show(message["newVersion"])
            elif message["type"] == "Mutation":
                self.run(message["requestId"])
                self.show(1)
            elif message["type"] == "Action":
                self.actions.append(message["requestId"])
                self.answer("Action", message["requestId"], 0)

    def deliver(self) -> None:
        if self.downward:
            self.take(self.peer.state.receive(self.downward.popleft()))

    def drop(self) -> None:
        if self.peer.state.online:
            self.upward.clear()
            self.downward.clear()
            self.take(self.peer.state.disconnected())

    # --- the server

    def run(self, request_id: int) -> None:
        if request_id not in self.applied:
            self.applied.append(request_id)
        count = self.applied.index(request_id) + 1
        self.answer("Mutation", request_id, count, ts=encode_ts(count))

    def answer(self, kind: str, request_id: int, result: int, **more: Any) -> None:
        body = {"requestId": request_id, "success": True, "result": result, "logLines": [], **more}
        self.downward.append(json.dumps({"type": f"{kind}Response", **body}))

    def show(self, query_set: int) -> None:
        start, self.version = self.version, state_version(query_set, 0, len(self.applied))
        result = {"type": "QueryUpdated", "queryId": 0, "value": len(self.applied), "logLines": []}
        transition = {"startVersion": start, "endVersion": self.version, "modifications": [result]}
        self.downward.append(json.dumps({"type": "Transition", **transition}))

    # --- the client

    def take(self, events: list[Event]) -> None:
        for event in events:
            if not isinstance(event, Finished):
                continue
            request_id = event.request.message.request_id
            assert request_id not in self.finished
            self.finished[request_id] = event.result
            if isinstance(event.request.message, Mutation):
                count = self.applied.index(request_id) + 1
                assert isinstance(event.result, Result) and event.result.value == count
                shown = self.query.result
                assert shown is not None and isinstance(shown.value, int) and shown.value >= count, "its own write is visible"


STEPS = [World.mutate, World.act, World.send, World.serve, World.deliver, World.drop]


@given(st.lists(st.sampled_from(STEPS), max_size=80))
def test_every_mutation_is_applied_once_and_every_call_answered(steps: list[Any]) -> None:
    world = World()
    for step in steps:
        step(world)
    world.send()
    while world.peer.state.requests:
        for step in (World.send, World.serve, World.deliver):
            step(world)
    asked = range(len(world.finished))
    assert sorted(world.finished) == list(asked)
    assert world.applied == sorted(world.applied) and len(set(world.applied)) == len(world.applied)
    assert len(set(world.actions)) == len(world.actions), "no action runs twice"
    for request_id in asked:
        assert request_id in world.applied or request_id in world.actions or isinstance(world.finished[request_id], ConnectionLost)
