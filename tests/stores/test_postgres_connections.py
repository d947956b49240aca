"""What an error of the Postgres driver means: whether to wait for the database, or to change something."""

from __future__ import annotations

import pytest

from reactor.errors import StoreError, StoreUnavailable
from reactor.stores.postgres_connections import Connections, Server
from tests.support.ports import reserve_port

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("what is Postgres's own")]


async def test_an_address_that_cannot_be_is_not_taken_for_a_database_that_is_away() -> None:
    with pytest.raises(StoreError, match="sslmode") as refused:
        await Server("postgres://somebody:secret@127.0.0.1/app?sslmode=nonsense").connect()
    assert not isinstance(refused.value, StoreUnavailable)
    assert "secret" not in str(refused.value)


async def test_a_database_that_is_away_is_one_to_wait_for() -> None:
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await Server(f"postgres://somebody:secret@127.0.0.1:{reserve_port()}/app").connect()


async def test_a_value_that_cannot_be_is_not_tried_again(postgres_url: str) -> None:
    connections = Connections(Server(postgres_url), 1)
    with pytest.raises(StoreError) as refused:
        async with connections.one() as connection:
            await connection.fetchval("SELECT $1::bigint", 1 << 70)
    assert not isinstance(refused.value, StoreUnavailable)
    connections.close()
