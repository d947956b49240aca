"""Checks that several functions share. What fails here is a user's mistake, so it is an AppError."""

from __future__ import annotations

from reactor import AppError, QueryCtx
from schema import Session, User


def mistake(code: str, message: str) -> AppError:
    """An error that the page shows as it stands."""
    return AppError({"code": code, "message": message})


def tidy(text: str, *, what: str, longest: int) -> str:
    """The text without outer spaces; refused when nothing is left, or more than `longest` characters."""
    text = text.strip()
    if not text:
        raise mistake("Empty", f"{what} must not be empty.")
    if len(text) > longest:
        raise mistake("TooLong", f"{what} may have at most {longest} characters, this has {len(text)}.")
    return text


async def current_user(ctx: QueryCtx, session: str) -> User:
    """The user this session belongs to."""
    known = await ctx.db.query(Session.by_token(token=session)).unique()
    user = await ctx.db.get(known.user) if known else None
    if user is None:
        raise mistake("SignedOut", "Please choose a name first.")
    return user
