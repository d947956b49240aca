"""The node processes that serve one port: a request to it reaches any of them, and some are about all.

Each answers the others over a Unix socket, named by its number, in a folder of their supervisor's that nobody else can enter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

__all__ = ["Siblings"]

#: One that has not answered by then hangs, or is being started.
ANSWER_S = 2.0
ANSWER_BYTES = 64 * 1024 * 1024


class Siblings:
    """The other processes, as one of them knows them.

    Args:
        folder: of the sockets.
        number: of this one, from 0.
        count: how many there are.
    """

    def __init__(self, folder: Path, number: int, count: int) -> None:
        self.number = number
        self._folder = folder
        self._count = count

    @contextlib.asynccontextmanager
    async def answering(self, told: Callable[[], Awaitable[bytes]]) -> AsyncIterator[None]:
        """Inside, whoever asks gets the JSON text that ``told`` gives then."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(ANSWER_S):
                    writer.write(await told())
                    await writer.drain()
            except (OSError, TimeoutError):
                writer.transport.abort()  # it waits no more
            finally:
                writer.close()

        path = self._path(self.number)
        path.unlink(missing_ok=True)  # of the process before this one, if that was killed
        async with await asyncio.start_unix_server(answer, path):
            yield

    async def ask(self) -> dict[str, Any]:
        """What the others tell, by their numbers; nothing for one that does not answer in time."""
        others = [number for number in range(self._count) if number != self.number]
        answers = await asyncio.gather(*map(self._ask, others))
        return {str(number): answer for number, answer in zip(others, answers, strict=True)}

    async def _ask(self, number: int) -> Any:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self._path(number), limit=ANSWER_BYTES)
                return orjson.loads(await reader.read())
        except (OSError, TimeoutError, orjson.JSONDecodeError):
            return {}
        finally:
            if writer is not None:
                writer.close()

    def _path(self, number: int) -> Path:
        return self._folder / str(number)
