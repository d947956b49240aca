"""Rate limits that are part of the transaction: what a mutation spends is undone with it.

The buckets are documents: ``schema.py`` imports their class, which makes it a table.
::

    from reactor.contrib.rate_limits import RateLimitBucket

A limit is declared once, at the top of a module::

    sending = TokenBucket("sending", rate=10, per=timedelta(minutes=1), capacity=20)

    @mutation
    async def send(ctx: MutationCtx, body: str) -> None:
        await sending.spend(ctx, key=(await ctx.auth.require()).subject)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta

from reactor.errors import AppError, ReactorError
from reactor.functions.context import MutationCtx, QueryCtx
from reactor.schema import Document, Index, lt

__all__ = ["Allowance", "FixedWindow", "RateLimitBucket", "RateLimited", "TokenBucket"]

KEY_CHARS = 200
SHARDS = 64
#: What adding up fractions of tokens may lose.
_EPSILON = 1e-6


class RateLimitBucket(Document, table="reactor_rate_limits"):
    """What is left of a limit for one key, in one of its shards.

    Attributes:
        tokens: as of ``updated``, ms since the epoch.
    """

    limit: str
    key: str
    shard: int
    tokens: float
    updated: float

    by_key = Index("limit", "key", "shard")
    by_updated = Index("limit", "updated")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a limit says.

    Attributes:
        ok: whether there was enough.
        remaining: tokens, after what was spent. Of a sharded limit: in the shard that was looked at.
        retry_after_s: when there will be enough, at the earliest; 0 if there is.
    """

    ok: bool
    remaining: float
    retry_after_s: float


class RateLimited(AppError):
    """A limit was met. Clients get the data ``{"kind": "RateLimited", "name": …, "retryAfter": ms}``.

    Attributes:
        retry_after_s: when there will be enough again, at the earliest.
    """

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__({"kind": "RateLimited", "name": name, "retryAfter": float(math.ceil(retry_after_s * 1000))})
        self.retry_after_s = retry_after_s


class _Limit(ABC):
    """What both kinds of limits do."""

    def __init__(self, name: str, *, rate: float, per: timedelta, capacity: float, shards: int) -> None:
        self.name = name
        if not isinstance(name, str) or not name:
            raise self._bad("needs a name")
        if not _positive(rate) or not _positive(capacity):
            raise self._bad(f"rate and capacity are positive numbers, not {rate!r} and {capacity!r}")
        if not isinstance(per, timedelta) or per <= timedelta():
            raise self._bad(f"per is a timedelta above zero, not {per!r}")
        if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= SHARDS:
            raise self._bad(f"shards is a number from 1 to {SHARDS}, not {shards!r}")
        if min(rate, capacity) / shards < 1:
            raise self._bad(f"{shards} shards of {min(rate, capacity):g} tokens have less than one each. Take fewer shards")
        self.shards = shards
        self._per_ms = per / timedelta(milliseconds=1)
        self._rate = rate / shards
        self._capacity = capacity / shards

    async def spend(self, ctx: MutationCtx, key: str = "", *, count: float = 1) -> float:
        """Spend tokens; how many are left.

        What the mutation spends is undone if it fails afterwards. To count failures too, spend in a mutation of its own.

        Args:
            key: whose: a user's id, an address. Each has its own tokens; "" is for a limit that all share.
            count: how many.

        Raises:
            RateLimited: there are not enough; nothing was spent.
            ReactorError: code ``BadRateLimit``: the key or count cannot be.
        """
        allowance = await self.try_spend(ctx, key, count=count)
        if not allowance.ok:
            raise RateLimited(self.name, allowance.retry_after_s)
        return allowance.remaining

    async def try_spend(self, ctx: MutationCtx, key: str = "", *, count: float = 1) -> Allowance:
        """As ``spend``, but what is not allowed is told and not raised."""
        shard, bucket, tokens = await self._fullest(ctx, key, count)
        if tokens + _EPSILON < count:
            return Allowance(False, tokens, self._wait_ms(ctx.now, tokens, count) / 1000)
        left = max(0.0, tokens - count)
        if bucket is None:
            await ctx.db.insert(RateLimitBucket(limit=self.name, key=key, shard=shard, tokens=left, updated=ctx.now))
        else:
            await ctx.db.patch(bucket.id, tokens=left, updated=max(ctx.now, bucket.updated))
        return Allowance(True, left, 0.0)

    async def check(self, ctx: QueryCtx, key: str = "", *, count: float = 1) -> Allowance:
        """Whether ``count`` tokens could be spent now. A query that asks runs again when some are spent, not as time goes by."""
        _, _, tokens = await self._fullest(ctx, key, count)
        ok = tokens + _EPSILON >= count
        return Allowance(ok, tokens, 0.0 if ok else self._wait_ms(ctx.now, tokens, count) / 1000)

    async def reset(self, ctx: MutationCtx, key: str = "") -> None:
        """Give ``key`` all its tokens back."""
        for bucket in await ctx.db.query(RateLimitBucket.by_key(limit=self.name, key=key)).collect():
            await ctx.db.delete(bucket.id)

    async def prune(self, ctx: MutationCtx, *, limit: int = 1000) -> int:
        """Delete buckets that have all their tokens, which is what none means; how many. Call it now and then until it says 0."""
        full = RateLimitBucket.by_updated(limit=self.name, updated=lt(ctx.now - self._full_after_ms))
        buckets = await ctx.db.query(full).take(limit)
        for bucket in buckets:
            await ctx.db.delete(bucket.id)
        return len(buckets)

    async def _fullest(self, ctx: QueryCtx, key: str, count: float) -> tuple[int, RateLimitBucket | None, float]:
        """The shard to spend from: the fuller one of two; another only if neither has enough."""
        if not isinstance(key, str) or len(key) > KEY_CHARS:
            raise self._bad(f"a key is a text of at most {KEY_CHARS} characters, not {repr(key)[:100]}")
        if not _positive(count) or count > self._capacity:
            raise self._bad(f"a call can spend up to {self._capacity:g} tokens, and not {count!r}")
        order = ctx.random.sample(range(self.shards), self.shards) if self.shards > 1 else [0]
        looked = [await self._look(ctx, key, shard) for shard in order[:2]]
        for shard in order[2:]:
            if max(tokens for _, _, tokens in looked) + _EPSILON >= count:
                break
            looked.append(await self._look(ctx, key, shard))
        return max(looked, key=lambda found: found[2])

    async def _look(self, ctx: QueryCtx, key: str, shard: int) -> tuple[int, RateLimitBucket | None, float]:
        bucket = await ctx.db.query(RateLimitBucket.by_key(limit=self.name, key=key, shard=shard)).first()
        if bucket is None:
            return shard, None, self._capacity
        # Another node's clock may be ahead.
        return shard, bucket, min(self._capacity, self._tokens(bucket.tokens, bucket.updated, max(ctx.now, bucket.updated)))

    @property
    def _full_after_ms(self) -> float:
        """How long after it was spent from last a bucket surely has all its tokens."""
        return self._per_ms * math.ceil(self._capacity / self._rate)

    @abstractmethod
    def _tokens(self, tokens: float, updated_ms: float, now_ms: float) -> float:
        """What a bucket that had ``tokens`` has now."""

    @abstractmethod
    def _wait_ms(self, now_ms: float, tokens: float, count: float) -> float:
        """How long until a bucket that has ``tokens`` has ``count``."""

    def _bad(self, reason: str) -> ReactorError:
        return ReactorError(f"{type(self).__name__}({self.name!r}): {reason}.", code="BadRateLimit")


class TokenBucket(_Limit):
    """Tokens come evenly, up to a capacity that can be spent at once.

    Args:
        name: of the limit, one in the app.
        rate: how many tokens come in each period.
        per: the period.
        capacity: how many there can be; as many as come in a period, unless given.
        shards: in how many parts the tokens of a key are kept, so that several nodes that spend from one key at the same time seldom
            wait for each other. Each part has its share of the tokens, and one call can spend no more than that.

    Raises:
        ReactorError: code ``BadRateLimit``: these cannot be.
    """

    def __init__(self, name: str, *, rate: float, per: timedelta, capacity: float | None = None, shards: int = 1) -> None:
        super().__init__(name, rate=rate, per=per, capacity=rate if capacity is None else capacity, shards=shards)

    def _tokens(self, tokens: float, updated_ms: float, now_ms: float) -> float:
        return tokens + (now_ms - updated_ms) * self._rate / self._per_ms

    def _wait_ms(self, now_ms: float, tokens: float, count: float) -> float:
        return (count - tokens) * self._per_ms / self._rate


class FixedWindow(_Limit):
    """All tokens come at the beginning of each period, and those that are left are lost. Periods are counted from the epoch: those of
    an hour begin on the hour, those of a day at midnight UTC.

    Args:
        name: of the limit, one in the app.
        rate: how many tokens come in each period.
        per: the period.
        shards: in how many parts the tokens of a key are kept, so that several nodes that spend from one key at the same time seldom
            wait for each other. Each part has its share of the tokens, and one call can spend no more than that.

    Raises:
        ReactorError: code ``BadRateLimit``: these cannot be.
    """

    def __init__(self, name: str, *, rate: float, per: timedelta, shards: int = 1) -> None:
        super().__init__(name, rate=rate, per=per, capacity=rate, shards=shards)

    def _tokens(self, tokens: float, updated_ms: float, now_ms: float) -> float:
        return tokens if now_ms // self._per_ms == updated_ms // self._per_ms else self._capacity

    def _wait_ms(self, now_ms: float, tokens: float, count: float) -> float:
        return self._per_ms - now_ms % self._per_ms


def _positive(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < math.inf
