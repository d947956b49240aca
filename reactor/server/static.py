"""The page of an app: files that are served at ``/`` beside the API."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

__all__ = ["StaticPage", "find_static"]

INDEX = "index.html"

#: Where a page is looked for beside schema.py when none is named.
PLACES = ("dist", "public")


def find_static(folder: Path) -> Path | None:
    """The folder of an app's built page: ``dist/`` or ``public/``, whichever has an index.html; or None."""
    return next((folder / place for place in PLACES if (folder / place / INDEX).is_file()), None)


class StaticPage(StaticFiles):
    """Serves a folder. A path that is no file is the page's own: it gets index.html, unless it looks like a file's.

    Args:
        folder: with an index.html.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, html=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except HTTPException as error:
            await PlainTextResponse(error.detail, status_code=error.status_code)(scope, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """See StaticFiles. Files are revalidated each time: they change with every build, and most keep their name."""
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or "." in path.rpartition("/")[2]:
                raise
            response = await super().get_response(INDEX, scope)
        response.headers.setdefault("cache-control", "no-cache")
        return response
