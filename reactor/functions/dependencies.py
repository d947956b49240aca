"""What a function needs beside its arguments: ``user: Annotated[User, Depends(current_user)]``, filled by the server."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, overload

from reactor.errors import SchemaError, place

__all__ = ["Dependencies", "Dependency", "Depends", "dependency_in", "hints_of"]

T = TypeVar("T")


class Dependency:
    """What ``Depends`` gives. In a signature it says by which function a parameter is filled."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        if not (inspect.isfunction(fn) or inspect.ismethod(fn)):
            raise TypeError(f"Depends takes a plain function of ctx; {fn!r} is not one")
        self.fn = fn

    def __repr__(self) -> str:
        return f"Depends({self.fn.__qualname__})"


@overload
def Depends(fn: Callable[..., Awaitable[T]], /) -> T: ...
@overload
def Depends(fn: Callable[..., T], /) -> T: ...
def Depends(fn: Callable[..., Any], /) -> Any:
    """Have the server fill a parameter with what ``fn(ctx)`` gives, in the same transaction, before the function begins.

    Write it into the annotation, ``user: Annotated[User, Depends(current_user)]``, or as the default,
    ``user: User = Depends(current_user)``. The second is for functions that Python code calls too: to type checkers the
    parameter then need not be given, and its type is checked against what ``fn`` gives. No caller can give it.

    Args:
        fn: ``async def`` or not. Takes a ctx, annotated with the kinds it can do with, and perhaps dependencies of its own. It runs
            once a call however many need it; what it raises is the call's failure.
    """
    return Dependency(fn)


def dependency_in(hint: Any, default: Any, where: str) -> Dependency | None:
    """The dependency that a parameter is, if it is one.

    Args:
        hint: its annotation, resolved.
        where: the parameter, for messages.

    Raises:
        SchemaError: the annotation has one inside, where nobody would fill it and clients could; or there are two.
    """
    inner, marks = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    found = [mark for mark in (*marks, default) if isinstance(mark, Dependency)]
    if any(_mentions(inner)):
        raise SchemaError(f"{where}: Depends stands inside of the annotation. Write Annotated[…, Depends(…)] around the whole of it.")
    if len(found) > 1:
        raise SchemaError(f"{where} has Depends twice. Write it into the annotation, or as the default.")
    if found and default is not inspect.Parameter.empty and not isinstance(default, Dependency):
        raise SchemaError(f"{where} is filled by {found[0]!r}, so its default would never be used. Leave it out.")
    return found[0] if found else None


def _mentions(hint: Any) -> Iterator[bool]:
    if get_origin(hint) is Annotated:
        yield any(isinstance(mark, Dependency) for mark in hint.__metadata__)
    for inner in get_args(hint):
        if not isinstance(inner, str):
            yield from _mentions(inner)


class _Need:
    """One dependency with those that it has itself."""

    __slots__ = ("fn", "needs")

    def __init__(self, fn: Callable[..., Any], needs: Mapping[str, _Need]) -> None:
        self.fn = fn
        self.needs = needs

    async def value(self, ctx: Any, known: dict[Hashable, Any]) -> Any:
        """What it gives to this call, for which ``known`` was given already."""
        if self.fn not in known:
            result = self.fn(ctx, **{name: await need.value(ctx, known) for name, need in self.needs.items()})
            known[self.fn] = await result if inspect.isawaitable(result) else result
        return known[self.fn]


class Dependencies:
    """The dependencies of one function, by parameter.

    Args:
        found: those in its signature.
        ctx: the class of its ctx.
        where: the function, for messages.
        names: what annotations may refer to beside the names of their module.

    Raises:
        SchemaError: one cannot be filled: it needs another kind of ctx, something that is no dependency, or itself.
    """

    __slots__ = ("_needs",)

    def __init__(self, found: Mapping[str, Dependency], ctx: type, where: str, names: Mapping[str, Any]) -> None:
        self._needs = {name: _need(dependency.fn, ctx, where, names, ()) for name, dependency in found.items()}

    async def fill(self, ctx: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of one call with those that are dependencies. One that is among them already is left as it is."""
        known: dict[Hashable, Any] = {}
        filled = dict(arguments)
        for name, need in self._needs.items():
            if name not in filled:
                filled[name] = await need.value(ctx, known)
        return filled


def hints_of(fn: Callable[..., Any], names: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The annotations of ``fn``, evaluated.

    Args:
        names: what they may refer to beside the names of the function's module.
        where: the function, for messages.

    Raises:
        SchemaError: one cannot be evaluated.
    """
    try:
        return typing.get_type_hints(fn, localns=dict(names), include_extras=True)
    except NameError as error:
        raise SchemaError(f"{where}: the name {error.name!r} in an annotation is not defined. Import it in the module.") from error
    except Exception as error:  # evaluating runs code of the app's
        raise SchemaError(
            f"{where}: an annotation cannot be evaluated: {type(error).__name__}: {error}. Write types that Python finds in the module."
        ) from error


def _need(fn: Callable[..., Any], ctx: type, where: str, names: Mapping[str, Any], above: tuple[Callable[..., Any], ...]) -> _Need:
    code = inspect.unwrap(fn).__code__
    here = f"{fn.__qualname__} ({place(code.co_filename, code.co_firstlineno)})"
    if fn in above:
        raise SchemaError(f"{where}: the dependency {here} depends on itself.")
    hints = hints_of(fn, names, here)
    parameters = list(inspect.signature(fn).parameters.values())
    if not parameters or parameters[0].name not in hints:
        raise SchemaError(f"The dependency {here} has no annotated ctx. Write: async def {fn.__name__}(ctx: {ctx.__name__}, …).")
    _check_ctx(hints[parameters[0].name], ctx, where, here)
    needs: dict[str, _Need] = {}
    for parameter in parameters[1:]:
        inner = dependency_in(hints.get(parameter.name), parameter.default, f"{here}: the parameter {parameter.name!r}")
        if inner is None:
            if parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            raise SchemaError(f"{here}: nobody fills the parameter {parameter.name!r}. A dependency takes ctx and other dependencies.")
        needs[parameter.name] = _need(inner.fn, ctx, where, names, (*above, fn))
    return _Need(fn, needs)


def _check_ctx(hint: Any, ctx: type, where: str, here: str) -> None:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not any(kind is Any or (isinstance(kind, type) and issubclass(ctx, kind)) for kind in kinds):
        needed = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
        raise SchemaError(f"{where} depends on {here}, which needs {needed}, and has {cast(Any, ctx).__name__}.")
