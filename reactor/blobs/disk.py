"""Blobs as files in a folder."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from reactor.blobs.blob_store import BLOCK_BYTES, BlobMissing, check_key
from reactor.errors import StoreError, StoreFull, StoreReadOnly

__all__ = ["DiskBlobs"]

T = TypeVar("T")


class DiskBlobs:
    """A ``BlobStore`` in ``folder``, which is made when the first blob comes. Its folders have the first two digits of the keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, blocks: AsyncIterator[bytes]) -> None:
        file = _File(self._path(key))
        try:
            await _on_disk(file.path, file.create)
            async for block in blocks:
                await _on_disk(file.path, file.write, block)
            await _on_disk(file.path, file.sync)
        except BaseException:
            await _on_disk(file.path, file.discard)
            raise
        finally:
            file.close()

    async def get(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        file = _File(self._path(key))
        try:
            await _on_disk(file.path, file.open, start)
            while start < end:
                block = await _on_disk(file.path, file.read, min(BLOCK_BYTES, end - start))
                if not block:
                    raise BlobMissing(f"{file.path}: the file ends at byte {start}, not at {end}")
                start += len(block)
                yield block
        finally:
            file.close()

    async def delete(self, key: str) -> None:
        path = self._path(key)
        await _on_disk(path, path.unlink, True)

    def _path(self, key: str) -> Path:
        return self._folder / check_key(key)[:2] / key


class _File:
    """A file on its way in or out. Its methods run in threads, one at a time; ``close`` after the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None

    @property
    def file(self) -> FileIO:
        assert self._file is not None, "opening comes first"
        return self._file

    def create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = FileIO(self.path, "x")

    def open(self, at: int) -> None:
        self._file = FileIO(self.path)
        self._file.seek(at)

    def read(self, size: int) -> bytes:
        return self.file.read(size)

    def write(self, block: bytes) -> None:
        rest = memoryview(block)
        while rest:
            rest = rest[self.file.write(rest) :]

    def sync(self) -> None:
        os.fsync(self.file.fileno())
        # The entries of the file and of its folder: without them the file is not there after a power failure.
        for folder in (self.path.parent, self.path.parent.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def discard(self) -> None:
        if self._file is not None:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


async def _on_disk(path: Path, work: Callable[..., T], *args: Any) -> T:
    """Run ``work`` in a thread. Cancelling it waits for its end: what it works on must not be taken away beneath it.

    Raises:
        StoreError: the disk does not do it.
    """
    running = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
    except FileNotFoundError as error:
        raise BlobMissing(f"{path}: there is no such file") from error
    except OSError as error:
        raise _store_error(error, path) from error


def _store_error(error: OSError, path: Path) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{path}: there is no space left for a file's content")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreReadOnly(f"{path}: {error.strerror}. Check the folder's permissions")
    return StoreError(f"{path}: {error.strerror or error}")
