from reactor import Document, Index


class Task(Document, table="tasks"):
    text: str
    done: bool = False

    by_done = Index("done")
