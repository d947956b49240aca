"""Declaring functions: six decorators."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from reactor.functions.context import ActionCtx, MutationCtx, QueryCtx
from reactor.functions.function import Action, Mutation, Query

__all__ = ["action", "internal_action", "internal_mutation", "internal_query", "mutation", "query"]

P = ParamSpec("P")
R = TypeVar("R")

_Queries = Callable[Concatenate[QueryCtx, P], Coroutine[Any, Any, R]]
_Mutations = Callable[Concatenate[MutationCtx, P], Coroutine[Any, Any, R]]
_Actions = Callable[Concatenate[ActionCtx, P], Coroutine[Any, Any, R]]


@overload
def query(fn: _Queries[P, R], /) -> Query[P, R]: ...
@overload
def query(*, name: str | None = None) -> Callable[[_Queries[P, R]], Query[P, R]]: ...
def query(fn: _Queries[P, R] | None = None, /, *, name: str | None = None) -> Query[P, R] | Callable[[_Queries[P, R]], Query[P, R]]:
    """Declare a query: it reads, and clients that asked keep receiving its current result.

    Args:
        name: the name on the wire, where it is not the function's own.
    """
    if fn is not None:
        return Query(fn, internal=False, name=None)
    return lambda fn: Query(fn, internal=False, name=name)


@overload
def mutation(fn: _Mutations[P, R], /) -> Mutation[P, R]: ...
@overload
def mutation(*, name: str | None = None) -> Callable[[_Mutations[P, R]], Mutation[P, R]]: ...
def mutation(
    fn: _Mutations[P, R] | None = None, /, *, name: str | None = None
) -> Mutation[P, R] | Callable[[_Mutations[P, R]], Mutation[P, R]]:
    """Declare a mutation: it reads and writes in one transaction, all or nothing. It may run several times until it commits.

    Args:
        name: the name on the wire, where it is not the function's own.
    """
    if fn is not None:
        return Mutation(fn, internal=False, name=None)
    return lambda fn: Mutation(fn, internal=False, name=name)


@overload
def action(fn: _Actions[P, R], /) -> Action[P, R]: ...
@overload
def action(*, name: str | None = None) -> Callable[[_Actions[P, R]], Action[P, R]]: ...
def action(fn: _Actions[P, R] | None = None, /, *, name: str | None = None) -> Action[P, R] | Callable[[_Actions[P, R]], Action[P, R]]:
    """Declare an action: it may reach the outside world. It runs at most once.

    Args:
        name: the name on the wire, where it is not the function's own.
    """
    if fn is not None:
        return Action(fn, internal=False, name=None)
    return lambda fn: Action(fn, internal=False, name=name)


@overload
def internal_query(fn: _Queries[P, R], /) -> Query[P, R]: ...
@overload
def internal_query(*, name: str | None = None) -> Callable[[_Queries[P, R]], Query[P, R]]: ...
def internal_query(
    fn: _Queries[P, R] | None = None, /, *, name: str | None = None
) -> Query[P, R] | Callable[[_Queries[P, R]], Query[P, R]]:
    """Declare a query that only other functions, and admins, can call.

    Args:
        name: the name on the wire, where it is not the function's own.
    """
    if fn is not None:
        return Query(fn, internal=True, name=None)
    return lambda fn: Query(fn, internal=True, name=name)


@overload
def internal_mutation(fn: _Mutations[P, R], /) -> Mutation[P, R]: ...
@overload
def internal_mutation(*, name: str | None = None) -> Callable[[_Mutations[P, R]], Mutation[P, R]]: ...
def internal_mutation(
    fn: _Mutations[P, R] | None = None, /, *, name: str | None = None
) -> Mutation[P, R] | Callable[[_Mutations[P, R]], Mutation[P, R]]:
    """Declare a mutation that only other functions, and admins, can call.

    Args:
        name: the name on the wire, where it is not the function's own.
    """
    if fn is not None:
        return Mutation(fn, internal=True, name=None)
    return lambda fn: Mutation(fn, internal=True, name=name)


@overload
def internal_action(fn: _Actions[P, R], /) -> Action[P, R]: ...
@overload
def internal_action(*, name: str | None = None) -> Callable[[_Actions[P, R]], Action[P, R]]: ...
def internal_action(
    fn: _Actions[P, R] | None = None, /, *, name: str | None = None
) -> Action[P, R] | Callable[[_Actions[P, R]], Action[P, R]]:
    """Declare an action that only other functions, and admins, can call.

    Args:
        name: the name on the wire, where it is not the function's own.
    """
    if fn is not None:
        return Action(fn, internal=True, name=None)
    return lambda fn: Action(fn, internal=True, name=name)
