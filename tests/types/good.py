"""What users write, fully inferred: a type checker must accept every line. Never run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, assert_type

from annotated_types import Len
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from reactor import (
    ABSENT,
    Absent,
    ActionCtx,
    AppError,
    Cors,
    CronJob,
    Crons,
    Depends,
    Document,
    EnvSettings,
    HttpRouter,
    Id,
    Identity,
    Index,
    Int64,
    MutationCtx,
    PaginationOptions,
    PaginationResult,
    QueryCtx,
    Reader,
    Rules,
    ScheduledFunction,
    StoredFile,
    Writer,
    action,
    between,
    gt,
    gte,
    internal_mutation,
    lt,
    mutation,
    query,
    webhooks,
)
from reactor.client import Client
from reactor.contrib.idempotency import Idempotency
from reactor.contrib.rate_limits import Allowance, TokenBucket
from reactor.testing import TestBackend
from reactor.values.codec import Value


class Address(BaseModel):
    city: str
    zip: str | None = None


class User(Document, table="users"):
    name: Annotated[str, Len(1, 80)]
    email: str | None = None
    nickname: str | None | Absent = ABSENT
    address: Address | None = None
    role: Literal["admin", "guest"] = "guest"
    visits: Int64 = Int64(0)

    by_name = Index("name")
    by_city = Index("address.city", "name")


class Message(Document, table="messages"):
    author: Id[User]
    reply_to: Id[Message] | None = None
    body: str

    by_author = Index("author")


@query
async def by_author(ctx: QueryCtx, author: Id[User], limit: int = 50) -> list[Message]:
    messages = await ctx.db.query(Message.by_author(author=author)).order("desc").take(limit)
    assert_type(messages, list[Message])
    return messages


@query
async def page(ctx: QueryCtx, options: PaginationOptions) -> PaginationResult[Message]:
    result = await ctx.db.query(Message).filter(lambda message: message.body != "").paginate(options)
    assert_type(result, PaginationResult[Message])
    assert_type(result.page, list[Message])
    assert_type(result.continue_cursor, str)
    return result


@query(name="reading")
async def read(ctx: QueryCtx, id: Id[Message], text: str) -> str | None:
    message = await ctx.db.get(id)
    assert_type(message, Message | None)
    assert_type(await ctx.db.get(User, text), User | None)
    assert_type(ctx.db.normalize_id(User, text), Id[User] | None)
    if message is None:
        return None
    assert_type(message.id, Id[Message])
    assert_type(message.creation_time, float)
    author = await ctx.db.get(message.author)
    assert_type(author, User | None)
    everybody = ctx.db.query(User.by_name(name=gte("A") & lt("N"), creation_time=gt(0)))
    assert_type(await everybody.first(), User | None)
    assert_type(await ctx.db.query(User.by_city(address__city=between("A", "B"))).unique(), User | None)
    assert_type(await ctx.db.query(User.by_creation_time(creation_time=gt(5))).count(), int)
    async for user in ctx.db.query(User):
        assert_type(user, User)
        assert_type(user.visits, Int64)
    identity = await ctx.auth.identity()
    assert_type(identity, Identity | None)
    assert_type((await ctx.auth.require()).subject, str)
    assert_type(ctx.now, float)
    return author.name if author is not None else None


class Settings(EnvSettings):
    api_key: str
    limit: int = 5


@query
async def configured(ctx: QueryCtx) -> str:
    assert_type(ctx.env["NAME"], str)
    assert_type(ctx.env.get("NAME"), str | None)
    assert_type(ctx.env.get("NAME", "default"), str)
    assert_type(ctx.env.settings(Settings), Settings)
    return ctx.env.settings(Settings).api_key


@mutation
async def send(ctx: MutationCtx, author: Id[User], body: str, urgent: bool = False) -> Id[Message]:
    if not body:
        raise AppError({"code": "Empty"})
    id = await ctx.db.insert(Message(author=author, body=body))
    assert_type(id, Id[Message])
    await ctx.db.patch(id, body=body.upper())
    await ctx.db.replace(id, Message(author=author, body=body))
    assert_type(await ctx.run_query(by_author, author=author), list[Message])
    assert_type(await ctx.run_mutation(forget, author), int)
    later = await ctx.scheduler.run_after(timedelta(minutes=5), forget, author=author)
    assert_type(later, Id[ScheduledFunction])
    await ctx.scheduler.run_at(datetime(2026, 1, 1, tzinfo=UTC), import_all, author, bodies=[])
    await ctx.scheduler.run_after(timedelta(), "messages:forget", author=author)
    await ctx.scheduler.cancel(later)
    job = await ctx.db.get(later)
    assert job is None or job.state.kind in ("pending", "canceled")
    return id


@internal_mutation
async def forget(ctx: MutationCtx, author: Id[User]) -> int:
    found = await ctx.db.query(Message.by_author(author=author)).collect()
    for message in found:
        await ctx.db.delete(message.id)
    return len(found)


@action
async def import_all(ctx: ActionCtx, author: Id[User], bodies: list[str]) -> list[Id[Message]]:
    sent = [await ctx.run_mutation(send, author=author, body=body) for body in bodies]
    assert_type(sent, list[Id[Message]])
    assert_type(await ctx.run_action(count_all, author=author), int)
    return sent


@action
async def keep(ctx: ActionCtx, data: bytes) -> Id[StoredFile]:
    id = await ctx.storage.store(data, content_type="text/plain")
    assert_type(id, Id[StoredFile])
    assert_type(await ctx.storage.get(id), bytes | None)
    async for chunk in ctx.storage.open(id):
        assert_type(chunk, bytes)
    return id


@query
async def address(ctx: QueryCtx, id: Id[StoredFile]) -> str | None:
    assert_type(await ctx.db.get(id), StoredFile | None)
    return await ctx.storage.get_url(id)


@mutation
async def forget_file(ctx: MutationCtx, id: Id[StoredFile]) -> str:
    await ctx.storage.delete(id)
    return await ctx.storage.generate_upload_url()


@action
async def count_all(ctx: ActionCtx, author: Id[User]) -> int:
    return len(await ctx.run_query(by_author, author=author, limit=3))


async def current_user(ctx: QueryCtx) -> User:
    identity = await ctx.auth.require()
    user = await ctx.db.query(User.by_name(name=identity.subject)).unique()
    if user is None:
        raise AppError("unknown")
    return user


CurrentUser = Annotated[User, Depends(current_user)]


@query
async def mine(ctx: QueryCtx, limit: int = 5, *, user: User = Depends(current_user)) -> list[Message]:
    assert_type(user, User)
    return await ctx.db.query(Message.by_author(author=user.id)).take(limit)


@query
async def my_name(ctx: QueryCtx, user: CurrentUser) -> str:
    assert_type(user, User)
    return user.name


@mutation
async def count_mine(ctx: MutationCtx) -> int:
    """A dependency that is a default need not be given by callers, and cannot be."""
    assert_type(await ctx.run_query(mine, limit=3), list[Message])
    return len(await ctx.run_query(mine))


rules = Rules(otherwise="deny")


@rules.modify(Message)
@rules.insert(Message)
@rules.read(Message)
async def authored(ctx: QueryCtx, message: Message) -> bool:
    return message.author == (await current_user(ctx)).id


@rules.modify(User)
def keeps_role(ctx: MutationCtx, user: User, after: User | None) -> bool:
    return after is not None and after.role == user.role


async def guarded(ctx: QueryCtx) -> Reader:
    db = rules.wrap(ctx)
    assert_type(db, Reader)
    assert_type(await db.query(Message).collect(), list[Message])
    return db


@mutation
async def send_guarded(ctx: MutationCtx, id: Id[Message], body: str, *, reader: Reader = Depends(guarded)) -> Message | None:
    db = rules.wrap(ctx)
    assert_type(db, Writer)
    await db.patch(id, body=body)
    message = await reader.get(id)
    assert_type(message, Message | None)
    return message


crons = Crons()
crons.interval("forget", timedelta(minutes=5), forget, author=Id[User]("…"))
crons.cron("count", "0 8 * * MON", count_all, Id[User]("…"))
crons.cron("count in Berlin", "0 8 * * MON", count_all, timezone="Europe/Berlin", author="…")
crons.daily("forget daily", forget, hour_utc=5, author="…")


@query
async def next_runs(ctx: QueryCtx) -> list[float]:
    return [cron.next_run async for cron in ctx.db.query(CronJob)]


async def test(t: TestBackend, author: Id[User]) -> None:
    assert_type(await t.query(by_author, author=author), list[Message])
    assert_type(await t.mutation(send, author, "hello"), Id[Message])
    assert_type(await t.query(mine), list[Message])
    assert_type(await t.with_identity(subject="alice").action(count_all, author=author), int)
    async for messages in t.subscribe(by_author, author=author):
        assert_type(messages, list[Message])

    async def prepare(ctx: MutationCtx) -> Id[User]:
        return await ctx.db.insert(User(name="Ada", address=Address(city="London")))

    assert_type(await t.run(prepare), Id[User])


async def use_client(client: Client) -> None:
    assert_type(await client.query("messages:by_author", author="…"), Value)
    await client.mutation("messages:send", author="…", body="hello")
    async for value in client.subscribe("messages:by_author", author="…"):
        assert_type(value, Value)


limit = TokenBucket("limit", rate=5, per=timedelta(minutes=1))
calls = Idempotency()


@mutation
async def once(ctx: MutationCtx, key: str, author: Id[User]) -> int:
    assert_type(await limit.spend(ctx, author, count=2), float)
    assert_type(await limit.try_spend(ctx), Allowance)
    return await calls.once(ctx, key, forget, author=author)


http = HttpRouter(cors=Cors(["https://app.example"]))


@http.route("/webhook", methods=["POST"])
async def webhook(ctx: ActionCtx, request: Request) -> Response:
    forgotten = await ctx.run_mutation(forget, author=Id[User](request.query_params["user"]))
    return PlainTextResponse(str(forgotten))


@internal_mutation
async def on_event(ctx: MutationCtx, event: webhooks.Event) -> None:
    assert_type(event.body["data"], Any)


@http.route("/stripe", methods=["POST"])
async def stripe(ctx: ActionCtx, request: Request) -> Response:
    assert_type(await ctx.run_once("key", forget, author=Id[User]("")), int)
    return await webhooks.stripe(ctx, request, "whsec_", on_event)


async def directly(ctx: ActionCtx, request: Request) -> None:
    assert_type(await webhook(ctx, request), Response)
