from reactor import AppError, Id, MutationCtx, QueryCtx, mutation, query
from schema import Task


@query
async def list_tasks(ctx: QueryCtx) -> list[Task]:
    """The newest tasks first. Clients that watch this stay current."""
    return await ctx.db.query(Task).order("desc").take(100)


@query
async def count_open(ctx: QueryCtx) -> int:
    return await ctx.db.query(Task.by_done(done=False)).count()


@mutation
async def add(ctx: MutationCtx, text: str) -> Id[Task]:
    text = text.strip()
    if not text:
        raise AppError("A task needs a text.")
    return await ctx.db.insert(Task(text=text))


@mutation
async def set_done(ctx: MutationCtx, task: Id[Task], done: bool = True) -> None:
    await ctx.db.patch(task, done=done)
