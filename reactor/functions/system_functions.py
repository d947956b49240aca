"""Functions of reactor's own that tools call as admins: the official command line asks for these."""

from __future__ import annotations

from typing import Any

from reactor.functions.context import QueryCtx
from reactor.functions.decorators import internal_query
from reactor.functions.environment import BUILT_IN
from reactor.functions.function import Function

__all__ = ["system_functions"]


@internal_query(name="default")
async def list_variables(ctx: QueryCtx) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in ctx.env.items() if name not in BUILT_IN]


@internal_query(name="get")
async def get_variable(ctx: QueryCtx, name: str) -> dict[str, str] | None:
    value = ctx.env.get(name)
    return None if value is None else {"name": name, "value": value}


_MODULES: dict[str, tuple[Function[..., Any], ...]] = {"_system/cli/queryEnvironmentVariables": (list_variables, get_variable)}


def system_functions() -> list[Function[..., Any]]:
    """All of them, compiled."""
    functions: list[Function[..., Any]] = []
    for module, declared in _MODULES.items():
        for function in declared:
            function.compile(f"{module}:{function.name}", {})
            functions.append(function)
    return functions
