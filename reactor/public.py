"""The names that users import from ``reactor``, which loads them when the first is asked for."""

from __future__ import annotations

from reactor.errors import (
    AccessDenied,
    AppError,
    ArgumentError,
    AuthenticationError,
    ConnectionLost,
    CursorError,
    DocumentNotFound,
    EnvironmentVariableError,
    FileError,
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
    ScheduleError,
    SchemaError,
    StoreError,
    ValueFormatError,
    WriteConflict,
    WrongFunctionKind,
)
from reactor.functions.context import ActionCtx, MutationCtx, QueryCtx
from reactor.functions.crons import Crons
from reactor.functions.database import Reader, Writer
from reactor.functions.decorators import action, internal_action, internal_mutation, internal_query, mutation, query
from reactor.functions.dependencies import Depends
from reactor.functions.environment import EnvSettings
from reactor.functions.function import Action, Mutation, Query
from reactor.functions.http import Cors, HttpRouter
from reactor.functions.identity import Identity
from reactor.functions.providers import OIDC, CustomJWT
from reactor.functions.rules import Rules
from reactor.limits import Limits
from reactor.schema import ABSENT, Absent, Document, Index, IndexRange, PaginationOptions, PaginationResult, between, gt, gte, lt, lte
from reactor.schema.system import CronJob, ScheduledFunction, ScheduledState, StoredFile
from reactor.values.codec import Int64
from reactor.values.ids import Id

__all__ = [
    "ABSENT",
    "OIDC",
    "Absent",
    "AccessDenied",
    "Action",
    "ActionCtx",
    "AppError",
    "ArgumentError",
    "AuthenticationError",
    "ConnectionLost",
    "Cors",
    "CronJob",
    "Crons",
    "CursorError",
    "CustomJWT",
    "Depends",
    "Document",
    "DocumentNotFound",
    "EnvSettings",
    "EnvironmentVariableError",
    "FileError",
    "FunctionNotFound",
    "FunctionTimeout",
    "HttpRouter",
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
    "Reader",
    "RemoteError",
    "ReturnsError",
    "Rules",
    "ScheduleError",
    "ScheduledFunction",
    "ScheduledState",
    "SchemaError",
    "StoreError",
    "StoredFile",
    "ValueFormatError",
    "WriteConflict",
    "Writer",
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
