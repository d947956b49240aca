"""Idempotency keys: a client that repeats a call gets the first one's result, and the call has one effect.

The official clients need none of this for calls that they repeat by themselves. A key is for what a person or a program repeats: a
payment sent again after a page was loaded anew, a request over HTTP. The keys are documents: ``schema.py`` imports their class, which makes
it a table::

    from reactor.contrib.idempotency import IdempotencyKey

What remembers calls is declared once, at the top of a module::

    payments = Idempotency(expires_in=timedelta(days=1))

    @mutation
    async def pay(ctx: MutationCtx, key: str, order: Id[Order]) -> Receipt:
        return await payments.once(ctx, key, charge, order=order)
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import orjson

from reactor.errors import AppError, ReactorError
from reactor.functions.context import MutationCtx
from reactor.functions.function import Mutation
from reactor.schema import Document, Index, lte

__all__ = ["Idempotency", "IdempotencyKey"]

P = ParamSpec("P")
R = TypeVar("R")

KEY_CHARS = 255


class IdempotencyKey(Document, table="reactor_idempotency_keys"):
    """A call that was made.

    Attributes:
        scope: the mutation's path and the caller.
        arguments: their hash.
        result: JSON text.
        expires: ms since the epoch.
    """

    scope: str
    key: str
    arguments: str
    result: str
    expires: float

    by_key = Index("scope", "key")
    by_expiry = Index("expires")


class Idempotency:
    """Remembers calls by the keys that their callers gave.

    Args:
        expires_in: how long.

    Raises:
        ReactorError: code ``BadIdempotency``: it is no time.
    """

    def __init__(self, *, expires_in: timedelta = timedelta(days=1)) -> None:
        if not isinstance(expires_in, timedelta) or expires_in <= timedelta():
            raise ReactorError(f"Idempotency: expires_in is a timedelta above zero, not {expires_in!r}.", code="BadIdempotency")
        self._expires_in_ms = expires_in / timedelta(milliseconds=1)

    async def once(self, ctx: MutationCtx, key: str, mutation: Mutation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``mutation`` inside this one, or give the result that it had when it ran with this key.

        Keys are those of one caller and one mutation. Callers that are not signed in share theirs: there a key should be one that
        nobody guesses, such as a UUID. A mutation that fails leaves nothing, and runs when the key comes again.

        Args:
            key: from the client, 1 to 255 characters.

        Raises:
            AppError: data ``{"kind": "IdempotencyKeyReused"}``: the key came with other arguments before;
                ``{"kind": "InvalidIdempotencyKey"}``: it is empty or too long.
            LimitExceeded: the result is too large for a document.
            What the mutation raises.
        """
        if not isinstance(key, str) or not 0 < len(key) <= KEY_CHARS:
            raise AppError({"kind": "InvalidIdempotencyKey", "message": f"An idempotency key has 1 to {KEY_CHARS} characters."})
        identity = await ctx.auth.identity()
        scope = f"{mutation.path} {'' if identity is None else identity.token_identifier}"
        arguments = _hash(mutation.args.to_json(mutation.by_name(args, kwargs)))
        known = await ctx.db.query(IdempotencyKey.by_key(scope=scope, key=key)).first()
        if known is not None and known.expires > ctx.now:
            if known.arguments != arguments:
                raise AppError({"kind": "IdempotencyKeyReused", "message": "This idempotency key was used with other arguments."})
            result: R = ctx.db.result_from_json(mutation, known.result)
            return result
        value = await ctx.run_mutation(mutation, *args, **kwargs)
        text = ctx.db.result_to_json(mutation, value)
        made = IdempotencyKey(scope=scope, key=key, arguments=arguments, result=text, expires=ctx.now + self._expires_in_ms)
        if known is None:
            await ctx.db.insert(made)
        else:
            await ctx.db.replace(known.id, made)
        return value

    async def prune(self, ctx: MutationCtx, *, limit: int = 1000) -> int:
        """Delete keys that have expired, whoever remembered them; how many. Call it now and then until it says 0."""
        expired = await ctx.db.query(IdempotencyKey.by_expiry(expires=lte(ctx.now))).take(limit)
        for key in expired:
            await ctx.db.delete(key.id)
        return len(expired)


def _hash(arguments: bytes) -> str:
    """The same for the same arguments in any order."""
    parsed: Any = orjson.loads(arguments)
    return hashlib.sha256(orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS)).hexdigest()
