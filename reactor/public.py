"""The names that users import from ``reactor``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactor.errors import (
        AppError,
        ArgumentError,
        AuthenticationError,
        ConnectionLost,
        CursorError,
        DocumentNotFound,
        FunctionNotFound,
        FunctionTimeout,
        IdError,
        IndexRangeError,
        LimitExceeded,
        NonDeterministicError,
        QueryError,
        ReactorError,
        RemoteError,
        ReturnsError,
        SchemaError,
        StoreError,
        ValueFormatError,
        WriteConflict,
        WrongFunctionKind,
    )
    from reactor.functions.context import ActionCtx, MutationCtx, QueryCtx
    from reactor.functions.decorators import action, internal_action, internal_mutation, internal_query, mutation, query
    from reactor.functions.function import Action, Mutation, Query
    from reactor.functions.identity import Identity
    from reactor.limits import Limits
    from reactor.schema import ABSENT, Absent, Document, Index, IndexRange, PaginationOptions, PaginationResult, between, gt, gte, lt, lte
    from reactor.values.codec import Int64
    from reactor.values.ids import Id

__all__ = [
    "ABSENT",
    "Absent",
    "Action",
    "ActionCtx",
    "AppError",
    "ArgumentError",
    "AuthenticationError",
    "ConnectionLost",
    "CursorError",
    "Document",
    "DocumentNotFound",
    "FunctionNotFound",
    "FunctionTimeout",
    "Id",
    "IdError",
    "Identity",
    "Index",
    "IndexRange",
    "IndexRangeError",
    "Int64",
    "LimitExceeded",
    "Limits",
    "Mutation",
    "MutationCtx",
    "NonDeterministicError",
    "PaginationOptions",
    "PaginationResult",
    "Query",
    "QueryCtx",
    "QueryError",
    "ReactorError",
    "RemoteError",
    "ReturnsError",
    "SchemaError",
    "StoreError",
    "ValueFormatError",
    "WriteConflict",
    "WrongFunctionKind",
    "action",
    "between",
    "gt",
    "gte",
    "internal_action",
    "internal_mutation",
    "internal_query",
    "lt",
    "lte",
    "mutation",
    "query",
]

# Where each public name lives. Looked up when first used, so that `reactor --help` does not load the engine.
_HOMES = {
    "ABSENT": "reactor.schema",
    "Absent": "reactor.schema",
    "Action": "reactor.functions.function",
    "ActionCtx": "reactor.functions.context",
    "AppError": "reactor.errors",
    "ArgumentError": "reactor.errors",
    "AuthenticationError": "reactor.errors",
    "ConnectionLost": "reactor.errors",
    "CursorError": "reactor.errors",
    "Document": "reactor.schema",
    "DocumentNotFound": "reactor.errors",
    "FunctionNotFound": "reactor.errors",
    "FunctionTimeout": "reactor.errors",
    "Id": "reactor.values.ids",
    "IdError": "reactor.errors",
    "Identity": "reactor.functions.identity",
    "Index": "reactor.schema",
    "IndexRange": "reactor.schema",
    "IndexRangeError": "reactor.errors",
    "Int64": "reactor.values.codec",
    "LimitExceeded": "reactor.errors",
    "Limits": "reactor.limits",
    "Mutation": "reactor.functions.function",
    "MutationCtx": "reactor.functions.context",
    "NonDeterministicError": "reactor.errors",
    "PaginationOptions": "reactor.schema",
    "PaginationResult": "reactor.schema",
    "Query": "reactor.functions.function",
    "QueryCtx": "reactor.functions.context",
    "QueryError": "reactor.errors",
    "ReactorError": "reactor.errors",
    "RemoteError": "reactor.errors",
    "ReturnsError": "reactor.errors",
    "SchemaError": "reactor.errors",
    "StoreError": "reactor.errors",
    "ValueFormatError": "reactor.errors",
    "WriteConflict": "reactor.errors",
    "WrongFunctionKind": "reactor.errors",
    "action": "reactor.functions.decorators",
    "between": "reactor.schema",
    "gt": "reactor.schema",
    "gte": "reactor.schema",
    "internal_action": "reactor.functions.decorators",
    "internal_mutation": "reactor.functions.decorators",
    "internal_query": "reactor.functions.decorators",
    "lt": "reactor.schema",
    "lte": "reactor.schema",
    "mutation": "reactor.functions.decorators",
    "query": "reactor.functions.decorators",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'reactor' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
