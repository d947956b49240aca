"""A declared function: its kind, its path, and the validators compiled from its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Generic, Literal, ParamSpec, TypeVar

from reactor.errors import ArgumentError, ReactorError, SchemaError, WrongFunctionKind, place
from reactor.functions.context import ActionCtx, MutationCtx, QueryCtx
from reactor.functions.dependencies import Dependencies, Dependency, dependency_in, hints_of
from reactor.schema.validators import ArgsValidator, ReturnsValidator

__all__ = ["Action", "Function", "Kind", "Mutation", "Query", "path_of"]

P = ParamSpec("P")
# Covariant, so that a call may stand where something wider is expected: len(await ctx.run_query(…)).
R_co = TypeVar("R_co", covariant=True)
Kind = Literal["query", "mutation", "action"]


class Function(Generic[P, R_co]):
    """A function that was declared with a decorator. Calling it runs it directly, with a ctx of the caller's.

    Attributes:
        kind: ``query``, ``mutation`` or ``action``.
        internal: whether clients cannot call it.
        path: ``folder/module:name``, once the app was loaded.
        fn: what was decorated.
        body: runs it with validated arguments, once its dependencies are filled.
    """

    kind: ClassVar[Kind]
    ctx: ClassVar[type]

    def __init__(self, fn: Callable[..., Coroutine[Any, Any, R_co]], *, internal: bool, name: str | None) -> None:
        if not inspect.iscoroutinefunction(fn):
            raise TypeError(f"@{self.kind} takes an `async def` function; {fn!r} is not one")
        self.fn = self.body = fn
        self.internal = internal
        self.name = name or fn.__name__
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__
        self._path: str | None = None
        self._args: ArgsValidator | None = None
        self._returns: ReturnsValidator | None = None
        self._parameters: tuple[str, ...] = ()
        self._dependencies: Dependencies | None = None

    def __repr__(self) -> str:
        return f"<{'internal ' if self.internal else ''}{self.kind} {self._path or self.name}>"

    async def __call__(self, ctx: Any, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        if self._dependencies is None:
            return await self.fn(ctx, *args, **kwargs)
        bound = inspect.signature(self.fn).bind_partial(ctx, *args, **kwargs)
        bound.arguments.update(await self._dependencies.fill(ctx, bound.arguments))
        return await self.fn(*bound.args, **bound.kwargs)

    @property
    def path(self) -> str:
        """The function's path.

        Raises:
            ReactorError: the app it belongs to was not loaded.
        """
        if self._path is None:
            raise ReactorError(f"{self!r} has no path yet: it is not in app_functions/ of a loaded app.")
        return self._path

    @property
    def args(self) -> ArgsValidator:
        """Validates arguments."""
        assert self._args is not None, "compile comes first"
        return self._args

    @property
    def returns(self) -> ReturnsValidator:
        """Validates and encodes results."""
        assert self._returns is not None, "compile comes first"
        return self._returns

    def compile(self, path: str, names: Mapping[str, Any]) -> None:
        """Give the function its path and make its validators.

        Args:
            names: what annotations may refer to beside the names of the function's module.

        Raises:
            SchemaError: the signature cannot be that of a function; says where and why.
        """
        where = f"{path} ({place(inspect.getsourcefile(self.fn), self.fn.__code__.co_firstlineno)})"
        hints = hints_of(self.fn, names, where)
        parameters = list(inspect.signature(self.fn).parameters.values())
        if not parameters:
            raise SchemaError(f"{where} takes no ctx. Write: async def {self.fn.__name__}(ctx: {self.kind.title()}Ctx, …).")
        ctx = hints.get(parameters[0].name)
        if ctx in (QueryCtx, MutationCtx, ActionCtx) and not issubclass(self.ctx, ctx):
            raise SchemaError(
                f"{where} is declared with @{'internal_' if self.internal else ''}{self.kind}, and gets a {self.ctx.__name__}, not a "
                f"{ctx.__name__}. Change the one or the other."
            )
        annotations: dict[str, Any] = {}
        required: set[str] = set()
        dependencies: dict[str, Dependency] = {}
        for parameter in parameters[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise SchemaError(f"{where}: *{parameter.name} cannot be validated. Name the arguments one by one.")
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise SchemaError(f"{where}: clients give arguments by name, and {parameter.name!r} cannot be. Write the '/' before it.")
            if parameter.name not in hints:
                raise SchemaError(f"{where}: the argument {parameter.name!r} has no annotation. Give it one; Any takes every value.")
            dependency = dependency_in(hints[parameter.name], parameter.default, f"{where}: the argument {parameter.name!r}")
            if dependency is not None:
                dependencies[parameter.name] = dependency
                continue
            annotations[parameter.name] = hints[parameter.name]
            if parameter.default is parameter.empty:
                required.add(parameter.name)
        self._parameters = tuple(annotations)
        self._args = ArgsValidator(path, annotations, frozenset(required))
        self._returns = ReturnsValidator(hints.get("return", Any), path)
        self._path = path
        if dependencies:
            self._dependencies = Dependencies(dependencies, self.ctx, where, names)
            self.body = self._filled

    async def _filled(self, ctx: Any, /, **arguments: Any) -> R_co:
        assert self._dependencies is not None, "only functions with dependencies are run by this"
        return await self.fn(ctx, **await self._dependencies.fill(ctx, arguments))

    def by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call in Python by name.

        Raises:
            ArgumentError: more positional arguments than parameters, or one given twice.
        """
        if len(args) > len(self._parameters):
            raise ArgumentError(f"{self.path} takes {len(self._parameters)} arguments, {len(args)} were given.")
        named = dict(zip(self._parameters, args, strict=False))
        if twice := named.keys() & kwargs.keys():
            raise ArgumentError(f"{self.path} was given the argument {min(twice)!r} twice.")
        return {**named, **kwargs}


class Query(Function[P, R_co]):
    """A function that reads, at one snapshot, and whose result clients keep receiving."""

    kind = "query"
    ctx = QueryCtx


class Mutation(Function[P, R_co]):
    """A function that reads and writes, all or nothing."""

    kind = "mutation"
    ctx = MutationCtx


class Action(Function[P, R_co]):
    """A function that may reach the outside world, and the database through queries and mutations."""

    kind = "action"
    ctx = ActionCtx


def path_of(function: Function[..., Any] | str) -> str:
    """The path of what is to be called.

    Raises:
        WrongFunctionKind: it is no function that was declared.
    """
    if isinstance(function, str):
        return function
    try:
        return function.path
    except AttributeError:
        raise WrongFunctionKind(
            f"{function!r} is no query, mutation or action. Name one that was declared with a decorator, and its arguments after it."
        ) from None
