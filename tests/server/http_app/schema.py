from __future__ import annotations

from reactor import Document


class Line(Document, table="lines"):
    text: str
