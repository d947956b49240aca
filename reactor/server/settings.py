"""What can be set from outside, by environment variables."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from reactor.limits import DEFAULT_LIMITS

__all__ = ["Settings", "is_postgres"]


class Settings(BaseSettings):
    """Settings of a server: ``REACTOR_PORT``, ``REACTOR_DB`` and so on; what is given to the constructor counts more.

    Attributes:
        site_port: a second port, with nothing but the app's HTTP actions; None: they are on ``port`` only.
        db: the database: a file, or ``postgres://user:password@host:port/database``, which any number of nodes may share.
        read_db: a hot standby of ``db`` that reads go to while it is fresh enough (Postgres).
        rollback: a schema that a later one has replaced may come into force again (Postgres).
        synchronous: ``normal`` may lose the last commits at a power failure, not at a crash.
        workers: node processes of ``reactor start`` on its port (Postgres).
        files: folder of the files' content, or ``s3://bucket/prefix``; None: beside the database.
        url: where clients reach the server, for what functions tell them; None: at host and port.
        static: folder of a page to serve at ``/``; None: ``dist/`` or ``public/`` beside schema.py, if one has an index.html.
        metrics: who may read ``/metrics``: ``open``, everybody; ``key``, who shows an admin key, or ``metrics_key``; ``off``, nobody. None:
            everybody in development, with a key in production.
        metrics_key: a secret for that and nothing else.
        stop_timeout_s: how long what runs may go on once the server was asked to stop.
        log_retention_s: how far back the commit log reaches.
        request_retention_s: how long a mutation sent again is recognised.
    """

    model_config = SettingsConfigDict(env_prefix="REACTOR_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(3210, ge=0, le=65535)
    site_port: int | None = Field(None, ge=0, le=65535)
    db: str = ".reactor/reactor.db"
    read_db: str | None = None
    rollback: bool = False
    workers: int = Field(1, ge=1)
    synchronous: Literal["full", "normal"] = "full"
    files: str | None = None
    url: str | None = Field(None, pattern=r"^https?://[^/?#]+/?$")
    static: Path | None = None
    metrics: Literal["open", "key", "off"] | None = None
    metrics_key: str | None = Field(None, min_length=1, repr=False)
    stop_timeout_s: float = Field(10.0, ge=0)
    log_retention_s: float = Field(DEFAULT_LIMITS.log_retention_s, gt=0)
    request_retention_s: float = Field(DEFAULT_LIMITS.request_retention_s, gt=0)

    @field_validator("db", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @property
    def postgres(self) -> str | None:
        """The address of a database on a server; None for a file."""
        return self.db if is_postgres(self.db) else None

    @property
    def shown_db(self) -> str:
        """The database as it may be shown: without a password."""
        if self.postgres is None:
            return self.db
        parts = urlsplit(self.postgres)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def beside(self) -> Path:
        """A path whose neighbours are the files that belong to the database: its admin key, the address of its server."""
        if self.postgres is None:
            return Path(self.db)
        return Path(".reactor") / f"postgres-{hashlib.sha256(self.shown_db.encode()).hexdigest()[:12]}"


def is_postgres(address: str) -> bool:
    """Whether it is that of a Postgres server."""
    return urlsplit(address).scheme in ("postgres", "postgresql")
