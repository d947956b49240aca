from __future__ import annotations

from typing_extensions import TypedDict

from reactor import AppError, Id, MutationCtx, QueryCtx, mutation, query
from schema import Line, Meeting, Presence, Segment

TAIL = 20
CHAT_LINES = 10


class Summary(TypedDict):
    """What a list of meetings shows of one."""

    title: str
    present: int
    last: str | None


@mutation
async def start(ctx: MutationCtx, title: str) -> Id[Meeting]:
    return await ctx.db.insert(Meeting(title=title))


@mutation
async def append(ctx: MutationCtx, meeting: Id[Meeting], speaker: str, at: float, text: str) -> None:
    await ctx.db.insert(Segment(meeting=meeting, speaker=speaker, at=at, text=text))


@mutation
async def say(ctx: MutationCtx, meeting: Id[Meeting], author: str, at: float, text: str) -> None:
    if not text.strip():
        raise AppError({"code": "Empty"})
    await ctx.db.insert(Line(meeting=meeting, author=author, at=at, text=text))


@mutation
async def beat(ctx: MutationCtx, meeting: Id[Meeting], person: str, at: float) -> None:
    """I am still here."""
    known = await ctx.db.query(Presence.by_meeting(meeting=meeting, person=person)).unique()
    if known is None:
        await ctx.db.insert(Presence(meeting=meeting, person=person, at=at))
    else:
        await ctx.db.patch(known.id, at=at)


@query
async def transcript(ctx: QueryCtx, meeting: Id[Meeting]) -> list[Segment]:
    """What was said last, newest first."""
    return await ctx.db.query(Segment.by_meeting(meeting=meeting)).order("desc").take(TAIL)


@query
async def chat(ctx: QueryCtx, meeting: Id[Meeting]) -> list[Line]:
    """The last lines, newest first."""
    return await ctx.db.query(Line.by_meeting(meeting=meeting)).order("desc").take(CHAT_LINES)


@query
async def present(ctx: QueryCtx, meeting: Id[Meeting]) -> list[Presence]:
    return await ctx.db.query(Presence.by_meeting(meeting=meeting)).collect()


@query
async def summary(ctx: QueryCtx, meeting: Id[Meeting]) -> Summary:
    found = await ctx.db.get(meeting)
    if found is None:
        raise AppError({"code": "NoSuchMeeting"})
    here = await ctx.db.query(Presence.by_meeting(meeting=meeting)).collect()
    last = await ctx.db.query(Segment.by_meeting(meeting=meeting)).order("desc").first()
    return {"title": found.title, "present": len(here), "last": last.text if last else None}
