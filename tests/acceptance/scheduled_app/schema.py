from reactor import Document, Index


class Run(Document, table="runs"):
    key: str

    by_key = Index("key")
