"""The documents that reactor keeps for itself, in tables beside the app's: in its transactions, its log and its live queries."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from reactor.schema.document import Document
from reactor.schema.index import Index

__all__ = ["SYSTEM", "Access", "AdminKey", "StoredFile"]

#: What functions may do with a table through ``ctx.db``. Of one that they cannot even read they see no document by any id.
Access: TypeAlias = Literal["none", "read", "write"]


class StoredFile(Document, table="_storage"):
    """A file that was stored. Read through ``ctx.db``, written by ``ctx.storage`` and uploads only.

    Attributes:
        sha256: of the content, in base64.
        size: bytes.
        content_type: as given with the upload, or None.
    """

    model_config = ConfigDict(alias_generator=to_camel)

    sha256: str
    size: float
    content_type: str | None


class AdminKey(Document, table="_admin_keys"):
    """A key that was made beside the server's own. The key itself is not kept.

    Attributes:
        name: what it is told by; there is one of each.
        sha256: of the key, in hexadecimal. A key is random and long: its hash cannot be turned back.
    """

    name: str
    sha256: str

    by_name = Index("name")


#: Every system document, with what functions may do with it. Its table's name begins with '_'.
SYSTEM: Mapping[type[Document], Access] = MappingProxyType({StoredFile: "read", AdminKey: "none"})
