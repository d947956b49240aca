"""Page cursors and journals: positions in a range of an index, that come back from clients.

A cursor is authenticated with the database's secret and bound to the range it was made for, so that whatever a client sends
is a position that the server gave out for that very query, or an error that makes the client restart at page one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from reactor.errors import CursorError

__all__ = ["Cursors"]

_MAC = 16
_FINGERPRINT = 8


class Cursors:
    """Makes and reads the cursors of one database.

    Args:
        secret: of the database; whoever has it can make cursors.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, fingerprint: bytes, key: bytes) -> str:
        """The text of a position: after the row with ``key`` in its range's order; ``END`` for the end of the range."""
        body = hashlib.blake2b(fingerprint, digest_size=_FINGERPRINT).digest() + key
        return base64.urlsafe_b64encode(self._mac(body) + body).decode()

    def read(self, fingerprint: bytes, cursor: str) -> bytes:
        """The position that ``cursor`` stands for.

        Raises:
            CursorError: it is not a cursor of this database, or is one of another query.
        """
        try:
            raw = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        body = raw[_MAC:]
        if len(body) <= _FINGERPRINT or not hmac.compare_digest(raw[:_MAC], self._mac(body)):
            raise CursorError("InvalidCursor: this is not a cursor of this database. Begin again at the first page.")
        if body[:_FINGERPRINT] != hashlib.blake2b(fingerprint, digest_size=_FINGERPRINT).digest():
            raise CursorError("InvalidCursor: this cursor belongs to another query, range or order. Begin again at the first page.")
        return body[_FINGERPRINT:]

    def _mac(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._secret[:64], digest_size=_MAC).digest()
