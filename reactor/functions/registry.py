"""The functions of an app, by path; and loading an app from its folder."""

from __future__ import annotations

import ast
import importlib
import inspect
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from reactor.errors import CodeError, FunctionNotFound, ReactorError, WrongFunctionKind, place
from reactor.functions.crons import Cron, Crons
from reactor.functions.determinism import freeze_modules
from reactor.functions.environment import EnvSettings, check_settings
from reactor.functions.function import Function, Kind
from reactor.functions.http import HttpRouter, router_in
from reactor.functions.providers import Declared, providers_in, providers_with
from reactor.functions.system_functions import system_functions
from reactor.schema.catalog import Catalog
from reactor.schema.system import SYSTEM

__all__ = ["App", "Registry", "canonical_path", "check_folder", "imported_app", "load_app", "python_files"]

FUNCTIONS_FOLDER = "app_functions"
SCHEMA_MODULE = "schema"
AUTH_MODULE = "auth_config"
CRONS_MODULE = f"{FUNCTIONS_FOLDER}.crons"
HTTP_MODULE = "http"
_NAMES = (SCHEMA_MODULE, FUNCTIONS_FOLDER)
_DEFINED = re.compile(r"^async def (\w+)", re.MULTILINE)


def canonical_path(path: str) -> str:
    """A function's path as clients may write it, in the one form that the registry has.

    ``messages``, ``messages:default`` and ``messages.js:default`` are the same function.

    Raises:
        FunctionNotFound: it is no path.
    """
    module, colon, name = path.rpartition(":")
    if not colon:
        module, name = path, "default"
    module = module.removesuffix(".js")
    segments = module.split("/")
    if not name.isidentifier() or not all(_segment(segment) for segment in segments) or len(name) > 64:
        raise FunctionNotFound(f"{path[:200]!r} is no function path. Write folder/module:function.", code="BadConvexFunctionIdentifier")
    return f"{module}:{name}"


def _segment(segment: str) -> bool:
    return segment.isascii() and 0 < len(segment) <= 64 and segment.replace("_", "").isalnum()


class Registry:
    """Functions by canonical path.

    Args:
        functions: the app's.
        system: reactor's own, which can be called and are not counted or listed.
    """

    __slots__ = ("_functions", "_known", "_system")

    def __init__(self, functions: Iterable[Function[..., Any]], system: Iterable[Function[..., Any]] = ()) -> None:
        self._functions = {function.path: function for function in functions}
        self._system = {function.path: function for function in system}
        # Paths as clients wrote them. Only those that led to a function are kept, so it cannot be made to grow.
        self._known: dict[str, Function[..., Any]] = dict(self._functions)

    def __iter__(self) -> Iterator[Function[..., Any]]:
        return iter(self._functions.values())

    def __len__(self) -> int:
        return len(self._functions)

    def find(self, path: str, kind: Kind | None, *, internal: bool) -> Function[..., Any]:
        """The function at ``path``.

        Args:
            kind: what it is called as; None for any kind.
            internal: whether internal functions may be called.

        Raises:
            FunctionNotFound: there is none, or it is internal and may not be called: the same text for both.
            WrongFunctionKind: it is of another kind.
        """
        function = self._known.get(path)
        if function is None:
            canonical = canonical_path(path)
            function = self._functions.get(canonical) or self._system.get(canonical)
        if function is None or (function.internal and not internal):
            public = "" if internal else "public "
            raise FunctionNotFound(
                f"Could not find {public}function for '{path[:200]}'. Did you save it, and is the server running this app?"
            )
        if kind is not None and function.kind != kind:
            raise WrongFunctionKind(f"Tried to execute {function.path} as {_a(kind)}, but it is defined as {_a(function.kind)}.")
        return function


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "action" else f"a {kind}"


@dataclass(frozen=True, slots=True)
class App:
    """What a folder holds: schema, functions, routes, crons, identity providers, and the settings that they need."""

    folder: Path
    catalog: Catalog
    registry: Registry
    providers: tuple[Declared, ...] = ()
    http: HttpRouter | None = None
    settings: tuple[type[EnvSettings], ...] = ()
    modules: Mapping[str, ModuleType] = field(default_factory=dict)
    crons: tuple[Cron, ...] = ()

    def check_environment(self, variables: Mapping[str, str]) -> None:
        """Check that this can be served with these environment variables.

        Raises:
            EnvironmentVariableError: one is missing, or does not fit.
            CodeError: the identity providers cannot be made of them.
        """
        check_settings(self.settings, variables)
        providers_with(self.providers, variables)


def check_folder(folder: Path) -> None:
    """Check that there is an app, whether it loads or not.

    Raises:
        CodeError: code ``NoApp``.
    """
    if not (folder / f"{SCHEMA_MODULE}.py").is_file() and not (folder / FUNCTIONS_FOLDER).is_dir():
        raise CodeError(
            f"{folder} holds no app: there is neither {SCHEMA_MODULE}.py nor {FUNCTIONS_FOLDER}/. "
            "Start in the folder of an app, or make one with: reactor init DIR",
            code="NoApp",
        )


def load_app(folder: Path, *, fresh: bool = True) -> App:
    """Load ``schema.py`` and ``app_functions/`` of ``folder``.

    Args:
        fresh: import every module of the folder anew, beside the running ones, which stay in place if that fails. Without it
            modules that are imported already are taken as they are.

    Raises:
        CodeError: the code does not load; names file and line, and shows the line. Code ``NoApp``: there is none.
        SchemaError: the schema or a signature cannot be used.
    """
    folder = folder.resolve()
    check_folder(folder)
    with _importing(folder, fresh):
        schema = _import(SCHEMA_MODULE, folder) if (folder / f"{SCHEMA_MODULE}.py").is_file() else None
        catalog = Catalog.of(schema if schema is not None else {}, SYSTEM)
        functions: list[Function[..., Any]] = []
        providers: tuple[Declared, ...] = ()
        http: HttpRouter | None = None
        for path, name in _function_modules(folder):
            module = _import(name, folder)
            functions += _declared(module, path, catalog)
            if path == AUTH_MODULE:
                providers = providers_in(vars(module))
            if path == HTTP_MODULE:
                http = router_in(vars(module))
        modules = {name: module for name, module in sys.modules.items() if _belongs(module, folder)}
        freeze_modules(modules.values())
        registry = Registry(_distinct(functions), system_functions())
        settings = tuple(_settings(modules.values()))
        return App(folder, catalog, registry, providers, http, settings, modules, _crons(modules, registry))


#: What ``imported_app`` made last, and what its modules held then.
_imported: tuple[App, Mapping[str, Mapping[str, Any]]] | None = None


def imported_app(folder: Path) -> App:
    """``load_app`` of the modules as they are imported. What it made is used again while nothing in them has changed.

    Raises:
        CodeError, SchemaError: as ``load_app``.
    """
    global _imported
    folder = folder.resolve()
    if _imported is not None and _imported[0].folder == folder and _is_current(*_imported):
        _first_on_path(folder)
        return _imported[0]
    app = load_app(folder, fresh=False)
    _imported = (app, {name: dict(vars(module)) for name, module in app.modules.items()})
    return app


def _is_current(app: App, contents: Mapping[str, Mapping[str, Any]]) -> bool:
    if any(name not in app.modules for _, name in _function_modules(app.folder)):
        return False
    for name, module in app.modules.items():
        before, now = contents[name], vars(module)
        if sys.modules.get(name) is not module or len(now) != len(before) or any(now.get(key) is not before[key] for key in before):
            return False
    return True


def _first_on_path(folder: Path) -> None:
    entry = str(folder)
    sys.path[:] = [entry, *(other for other in sys.path if other != entry)]


def _crons(modules: Mapping[str, ModuleType], registry: Registry) -> tuple[Cron, ...]:
    """What ``crons.py`` declares, each with its function found and its arguments checked."""
    for module in modules.values():
        for name, value in vars(module).items():
            if isinstance(value, Crons) and (module.__name__, name) != (CRONS_MODULE, "crons"):
                raise CodeError(
                    f"{module.__name__}.{name} is a Crons that nobody looks at. Write it in {FUNCTIONS_FOLDER}/crons.py: crons = Crons()."
                )
    declared = getattr(modules.get(CRONS_MODULE), "crons", None)
    if not isinstance(declared, Crons):
        return ()
    return tuple(cron.found(lambda path: registry.find(path, None, internal=True)) for cron in declared)


def python_files(root: Path) -> list[Path]:
    """The Python files below a folder, in order. A folder that is removed meanwhile has none."""
    return sorted(Path(place, name) for place, _, names in os.walk(root) for name in names if name.endswith(".py"))


def _function_modules(folder: Path) -> Iterator[tuple[str, str]]:
    """The path and the import name of each module of functions."""
    root = folder / FUNCTIONS_FOLDER
    for file in python_files(root):
        parts = file.relative_to(root).with_suffix("").parts
        hidden = any(not part.isidentifier() or part.startswith("__") for part in parts)
        # The modules that configure the app beside its functions, and tests, are not looked at for functions.
        if hidden or parts[-1].startswith("test_") or parts[-1] == "conftest":
            continue
        yield "/".join(parts), ".".join((FUNCTIONS_FOLDER, *parts))


def _declared(module: ModuleType, path: str, catalog: Catalog) -> Iterator[Function[..., Any]]:
    names = {table.document.__name__: table.document for table in catalog.tables.values()}
    twice = _defined_twice(module)
    for value in list(vars(module).values()):
        # Imported from another module, a function belongs there.
        if isinstance(value, Function) and value.__module__ == module.__name__:
            if value.__name__ in twice:
                first, second = twice[value.__name__]
                here = place(module.__file__, second)
                raise CodeError(f"{here}: {path}:{value.name} is declared here and in line {first}, and Python keeps the last. Rename one.")
            value.compile(f"{path}:{value.name}", names)
            yield value


def _defined_twice(module: ModuleType) -> dict[str, tuple[int, int]]:
    """The functions that a module's text defines more than once, each with the lines of the first two."""
    try:
        linecache.checkcache(module.__file__)
        text = inspect.getsource(module)
        names = _DEFINED.findall(text)
        if len(names) == len(set(names)):
            return {}
        statements = ast.parse(text).body  # what looked like one may stand in a text
    except (OSError, TypeError, SyntaxError):
        return {}  # no text, or saved again meanwhile
    lines: dict[str, list[int]] = {}
    for statement in statements:
        if isinstance(statement, ast.AsyncFunctionDef) and not any(_is_overload(decorator) for decorator in statement.decorator_list):
            lines.setdefault(statement.name, []).append(statement.lineno)
    return {name: (found[0], found[1]) for name, found in lines.items() if len(found) > 1}


def _is_overload(decorator: ast.expr) -> bool:
    """Whether it is for type checkers: such a definition is meant to be replaced."""
    return "overload" in (getattr(decorator, "id", None), getattr(decorator, "attr", None))


def _settings(modules: Iterable[ModuleType]) -> Iterator[type[EnvSettings]]:
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, EnvSettings) and value.__module__ == module.__name__:
                yield value


def _distinct(functions: list[Function[..., Any]]) -> list[Function[..., Any]]:
    seen: dict[str, Function[..., Any]] = {}
    for function in functions:
        other = seen.setdefault(function.path, function)
        if other is not function:
            raise CodeError(f"{function.path} is declared twice: as {other.fn.__qualname__} and as {function.fn.__qualname__}. Rename one.")
    return list(seen.values())


@contextmanager
def _importing(folder: Path, fresh: bool) -> Iterator[None]:
    """The folder's modules are importable inside; with ``fresh`` imported anew, and the old ones put back on failure.

    Raises:
        CodeError: without ``fresh``, when another app's modules have their names.
    """
    before = {name: module for name, module in sys.modules.items() if _belongs(module, folder)}
    other = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in _NAMES and name not in before}
    if fresh:
        for name in (*before, *other):
            del sys.modules[name]
        importlib.invalidate_caches()
    elif taken := [name for name in (SCHEMA_MODULE, *(name for _, name in _function_modules(folder))) if name in other]:
        raise CodeError(
            f"{taken[0]!r} is imported already, from another app than the one in {folder}. "
            "Take one app in a process, or import its modules after its folder is the first on sys.path."
        )
    _first_on_path(folder)
    writing, sys.dont_write_bytecode = sys.dont_write_bytecode, sys.dont_write_bytecode or fresh
    try:
        yield
    except BaseException:
        if fresh:
            for name in [name for name, module in sys.modules.items() if _belongs(module, folder)]:
                del sys.modules[name]
            sys.modules.update(before | other)
        raise
    finally:
        sys.dont_write_bytecode = writing


def _belongs(module: ModuleType | None, folder: Path) -> bool:
    if module is None:
        return False
    name = getattr(module, "__name__", "")
    if name == "__main__":
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        places = [str(place) for place in getattr(module, "__path__", ())]
        return any(place == str(folder / FUNCTIONS_FOLDER) or place.startswith(f"{folder / FUNCTIONS_FOLDER}/") for place in places)
    path = Path(file)
    if not path.is_relative_to(folder):
        return False
    first = path.relative_to(folder).parts[0]
    # Only what an app is made of: its schema, its functions, and modules beside them; no environment, tests or tools.
    return first == FUNCTIONS_FOLDER or (path.parent == folder and not first.startswith(("test_", "conftest")))


def _import(name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ReactorError as error:
        raise type(error)(f"{_place(error, folder)}{error.message}", code=error.code) from None
    except SyntaxError as error:
        where = f"{_relative(error.filename, folder)}:{error.lineno}" if error.filename else f"the module {name}"
        line = f"\n    {error.text.strip()}" if error.text else ""
        raise CodeError(f"{where}: {error.msg}{line}", code="InvalidModules") from None
    except (Exception, SystemExit) as error:
        raise CodeError(f"{_place(error, folder)}{type(error).__name__}: {error}{_line(error, folder)}") from None


def _frame(error: BaseException, folder: Path) -> traceback.FrameSummary | None:
    """The innermost frame of the app's own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)]
    inside = [frame for frame in frames if "site-packages" not in frame.filename]
    return inside[-1] if inside else None


def _place(error: BaseException, folder: Path) -> str:
    frame = _frame(error, folder)
    return "" if frame is None else f"{_relative(frame.filename, folder)}:{frame.lineno}: "


def _line(error: BaseException, folder: Path) -> str:
    frame = _frame(error, folder)
    return f"\n    {frame.line}" if frame is not None and frame.line else ""


def _relative(filename: Any, folder: Path) -> str:
    path = Path(str(filename))
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
