"""reactor: a reactive, transactional backend in Python.

Declare documents in ``schema.py``, write ``@query``, ``@mutation`` and ``@action`` functions in ``app_functions/``, run
``reactor dev``: every client watching a query keeps receiving its current result.
"""

from reactor.errors import (
    AppError,
    ArgumentError,
    AuthenticationError,
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
