"""A disk that fails when told to: a VFS of SQLite's under every database opened meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

NAME = "faulty"


class FaultyDisk:
    """Set ``full``, ``failing`` or ``refusing`` to the ending of the names of files ("" for all) that then cannot be
    written, synced or opened; ``room`` to the bytes that can still be written. ``waited`` are the threads that waited for it.
    """

    def __init__(self) -> None:
        self.full: str | None = None
        self.room: int | None = None
        self.failing: str | None = None
        self.refusing: str | None = None
        self.waited: list[int] = []

    def write(self, name: str, size: int) -> None:
        if self.full is not None and name.endswith(self.full):
            raise apsw.FullError("no space")
        if self.room is not None:
            if size > self.room:
                raise apsw.FullError("no space")
            self.room -= size

    def sync(self, name: str) -> None:
        self.waited.append(threading.get_ident())
        if self.failing is not None and name.endswith(self.failing):
            raise apsw.IOError("broken")

    def open(self, name: str) -> None:
        if self.refusing is not None and name.endswith(self.refusing):
            raise apsw.CantOpenError("refused")


@contextmanager
def faulty_disk() -> Iterator[FaultyDisk]:
    """Databases opened inside stand on the disk that it gives."""
    disk = FaultyDisk()

    class File(apsw.VFSFile):
        def __init__(self, name: Any, flags: list[int]) -> None:
            self.name = "" if name is None else name.filename() if isinstance(name, apsw.URIFilename) else str(name)
            disk.open(self.name)
            super().__init__("unix", name, flags)

        def xWrite(self, data: Any, offset: int) -> None:
            disk.write(self.name, len(data))
            super().xWrite(data, offset)

        def xSync(self, flags: int) -> None:
            disk.sync(self.name)
            super().xSync(flags)

    class Disk(apsw.VFS):
        def __init__(self) -> None:
            super().__init__(NAME, "unix", makedefault=True)

        def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
            return File(name, flags)

    vfs = Disk()
    try:
        yield disk
    finally:
        vfs.unregister()
