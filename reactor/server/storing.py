"""Where the settings say that documents and files are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reactor.blobs.blob_store import BlobStore
from reactor.blobs.disk import DiskBlobs
from reactor.errors import StoreError
from reactor.server.settings import Settings
from reactor.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from reactor.stores.postgres import PostgresStore

__all__ = ["files_folder", "open_blobs", "open_store"]


async def open_store(settings: Settings) -> SqliteStore | PostgresStore:
    """The database that the settings name.

    Raises:
        StoreError: it cannot be used.
    """
    if settings.postgres is None:
        return SqliteStore.open(settings.db, synchronous=settings.synchronous)
    # Only who uses it needs the driver.
    try:
        from reactor.stores.postgres import PostgresStore
    except ModuleNotFoundError as error:
        raise StoreError(f"Postgres needs {error.name}. Install it with: pip install 'reactor[postgres]'") from error
    return await PostgresStore.open(
        settings.postgres,
        read_url=settings.read_db,
        synchronous=settings.synchronous == "full",
        rollback=settings.rollback,
    )


def files_folder(database: Path) -> Path:
    """Where the content of files is by default: beside the database."""
    return database.with_name(f"{database.name}-files")


def open_blobs(settings: Settings) -> BlobStore:
    """The blob store that the settings name.

    Raises:
        ReactorError: it cannot be one.
    """
    if settings.files is not None and "://" in settings.files:
        from reactor.blobs.objects import ObjectBlobs

        return ObjectBlobs(settings.files)
    return DiskBlobs(Path(settings.files) if settings.files is not None else files_folder(settings.beside))
