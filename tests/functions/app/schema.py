"""Documents for the tests of the function layer."""

from __future__ import annotations

from pydantic import BaseModel

from reactor import ABSENT, Absent, Document, Index


class Item(Document, table="items"):
    list: str
    rank: float

    by_list = Index("list", "rank")
    by_rank = Index("rank")


class Address(BaseModel):
    city: str
    street: str | None = None


class Person(Document, table="people"):
    """Every way in which a field can be missing."""

    name: str
    nick: str | None = None
    age: float | None
    mood: str | Absent | None = ABSENT
    address: Address | None = None

    by_nick = Index("nick")
    by_age = Index("age")
    by_mood = Index("mood")
    by_city = Index("address.city")


class Blob(Document, table="blobs"):
    text: str = ""
    deep: object = None
