"""Bringing the stored crons to what the app declares."""

from __future__ import annotations

from typing import Any

from reactor.functions.crons import Cron
from reactor.functions.database import Writer
from reactor.functions.runner import Runner
from reactor.functions.scheduling import finish
from reactor.schema.system import CronJob, ScheduledFunction, ScheduledState
from reactor.values import codec

__all__ = ["reconcile"]


async def reconcile(runner: Runner) -> None:
    """Have exactly the app's crons run from now on, in one transaction. Called once the app serves, after each push.

    A cron whose times are as before keeps its next run; one with others begins anew; one that is gone runs no more. A run that is
    in progress goes on.

    Raises:
        StoreError, WriteConflict: nothing was changed.
    """
    declared = {cron.name: cron for cron in runner.app.crons}

    async def run(db: Writer, now_ms: float) -> None:
        stored = {cron.name: cron for cron in await db.query(CronJob).collect()}
        for name, cron in stored.items():
            if name not in declared:
                await _remove(db, now_ms, cron)
        for name, wanted in declared.items():
            await _bring(db, now_ms, stored.get(name), wanted)

    await runner.transact(run)


async def _bring(db: Writer, now_ms: float, stored: CronJob | None, wanted: Cron) -> None:
    args: Any = [codec.from_json(wanted.args)]
    spec = str(wanted.spec)
    job = await db.get(ScheduledFunction, stored.job) if stored is not None else None
    same = stored is not None and stored.spec == spec
    first_ms = stored.first_run if stored is not None and same else wanted.spec.first(now_ms)
    if stored is None or job is None or job.state.kind not in ("pending", "inProgress"):
        pending = ScheduledState(kind="pending")
        id = await db.insert(ScheduledFunction(name=wanted.path, args=args, scheduled_time=first_ms, state=pending))
        fresh = CronJob(
            name=wanted.name, spec=spec, function=wanted.path, args=args, first_run=first_ms, next_run=first_ms, job=id, runs=[]
        )
        await (db.insert(fresh) if stored is None else db.replace(stored.id, fresh))
        return
    # As text: in Python 1 and 1.0 and True are equal.
    if same and stored.function == wanted.path and codec.to_json(stored.args) == codec.to_json(args):
        return
    next_ms = stored.next_run
    if job.state.kind == "pending":
        next_ms = next_ms if same else first_ms
        await db.patch(job.id, name=wanted.path, args=args, scheduled_time=next_ms)
    await db.patch(stored.id, spec=spec, function=wanted.path, args=args, first_run=first_ms, next_run=next_ms)


async def _remove(db: Writer, now_ms: float, cron: CronJob) -> None:
    await db.delete(cron.id)
    job = await db.get(ScheduledFunction, cron.job)
    if job is not None and job.state.kind == "pending":
        await finish(db, now_ms, job, "canceled")
