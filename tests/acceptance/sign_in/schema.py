from reactor import Document, Index


class Note(Document, table="notes"):
    owner: str
    text: str

    by_owner = Index("owner")
