"""Schemas made on the spot, and what the database does with a document."""

from __future__ import annotations

import types
from typing import Any, TypeVar

import orjson

from reactor.schema import Document
from reactor.schema.catalog import Catalog
from reactor.schema.document import wire_fields
from reactor.values.codec import to_json
from reactor.values.ids import encode_id

D = TypeVar("D", bound=Document)
ID = encode_id(10001, bytes(16))
OTHER_ID = encode_id(10002, bytes(16))


def catalog_of(*documents: type[Document]) -> Catalog:
    """The catalog of these documents, their tables numbered from 10001 in this order."""
    catalog = Catalog.of({document.__name__: document for document in documents})
    catalog.bind({name: 10001 + at for at, name in enumerate(catalog.tables)})
    return catalog


def document_of(annotations: dict[str, Any], table: str = "things", **attributes: Any) -> type[Document]:
    """``class Thing(Document, table="things")`` with these fields, defaults and indexes."""
    body = {"__annotations__": annotations, "__module__": __name__, **attributes}
    made: type[Document] = types.new_class("Thing", (Document,), {"table": table}, lambda names: names.update(body))
    return made


def text_of(document: Document) -> str:
    """A document as its table keeps it."""
    return to_json({**wire_fields(document), "_id": ID, "_creationTime": 1.5}).decode()


def stored(document: D, catalog: Catalog) -> D:
    """A document as it is read after it was inserted."""
    return type(document).from_row(text_of(document), catalog)


def fields_of(document: Document) -> Any:
    """A document's own fields on the wire."""
    return orjson.loads(to_json(wire_fields(document)))
