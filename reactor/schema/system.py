"""The documents that reactor keeps for itself, in tables beside the app's: in its transactions, its log and its live queries."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from reactor.schema.document import Document
from reactor.schema.index import Index
from reactor.values.ids import Id

__all__ = [
    "ENVIRONMENT",
    "SYSTEM",
    "Access",
    "AdminKey",
    "CronJob",
    "EnvironmentVariable",
    "ScheduledFunction",
    "ScheduledState",
    "SchedulerLease",
    "StoredBlob",
    "StoredFile",
]

ENVIRONMENT = "_environment_variables"

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


class ScheduledState(BaseModel):
    """How far a scheduled function has come.

    Attributes:
        kind: ``inProgress`` is for actions only: a mutation is pending until it commits.
        error: why it failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pending", "inProgress", "success", "failed", "canceled"]
    error: str | None = None


class ScheduledFunction(Document, table="_scheduled_functions"):
    """A function to be called later, or that was. Written by ``ctx.scheduler`` and what runs them only.

    Attributes:
        name: the function's path.
        args: one object, the arguments by name.
        scheduled_time: when it is due, ms since the epoch.
        completed_time: when it ended, the same; None before.
    """

    model_config = ConfigDict(alias_generator=to_camel)

    name: str
    args: list[dict[str, Any]]
    scheduled_time: float
    completed_time: float | None = None
    state: ScheduledState

    by_state = Index("state.kind", "scheduled_time")
    by_completed_time = Index("completed_time")


class CronJob(Document, table="_crons"):
    """A cron as the app declares it, with its runs, which are scheduled functions. Written by pushes and what runs them only.

    Attributes:
        spec: when it runs: ``every 30 s``, or five fields and a time zone.
        function: its path.
        args: one object, the arguments by name.
        first_run: ms since the epoch; intervals count from here.
        next_run: when it is due next, or was, if it runs now.
        last_run: when the run before was due; None before the first has ended.
        job: its next run, or the one that runs now.
        runs: those before, the newest last.
    """

    model_config = ConfigDict(alias_generator=to_camel)

    name: str
    spec: str
    function: str
    args: list[dict[str, Any]]
    first_run: float
    next_run: float
    last_run: float | None = None
    job: Id[ScheduledFunction]
    runs: list[Id[ScheduledFunction]]

    by_name = Index("name")
    by_job = Index("job")


class SchedulerLease(Document, table="_scheduler_leases"):
    """A node's time-limited claim on scheduled functions. There is one for each node that has any to run.

    Attributes:
        owner: names the node, for as long as its process lives.
        expires: ms since the epoch, by that node's clock, unless it is renewed.
        jobs: ids of ``ScheduledFunction``.
    """

    owner: str
    expires: float
    jobs: list[str]


class EnvironmentVariable(Document, table=ENVIRONMENT):
    """A variable of the deployment. Its id is made from its name, so that there is one of each."""

    name: str
    value: str


class StoredBlob(Document, table="_storage_blobs"):
    """The content of a file in the blob store, known there by ``key``. It has a file, or a time to be collected at.

    Attributes:
        key: a UUID; also what the content is served under, so that knowing a file's id gives no access.
        collect_ms: from when on it may be deleted, ms since the epoch.
    """

    key: str
    file: Id[StoredFile] | None = None
    collect_ms: float | None = None

    by_key = Index("key")
    by_file = Index("file")
    by_collect_ms = Index("collect_ms")


#: Every system document, with what functions may do with it. Its table's name begins with '_'.
SYSTEM: Mapping[type[Document], Access] = MappingProxyType(
    {
        StoredFile: "read",
        StoredBlob: "none",
        ScheduledFunction: "read",
        CronJob: "read",
        SchedulerLease: "none",
        AdminKey: "none",
        EnvironmentVariable: "none",
    }
)
