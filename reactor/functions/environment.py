"""``ctx.env``: the deployment's variables, as functions read them, and how they are changed and checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast, overload
from weakref import WeakKeyDictionary

import orjson
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from pydantic_settings.sources import EnvSettingsSource

from reactor.engine.committer import Answer
from reactor.engine.engine import Engine
from reactor.engine.transaction import Transaction
from reactor.errors import EnvironmentVariableError
from reactor.limits import DEFAULT_LIMITS, Limits
from reactor.schema.catalog import Table
from reactor.schema.system import ENVIRONMENT
from reactor.values import codec
from reactor.values.ids import encode_id

__all__ = ["EnvSettings", "Environment", "addresses_of", "change_variables", "check_settings", "variables"]

S = TypeVar("S", bound="EnvSettings")
D = TypeVar("D")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
#: What the server says of itself. Nobody can set these.
BUILT_IN = ("CONVEX_CLOUD_URL", "CONVEX_SITE_URL")

#: Of a name, whatever the limits of a backend.
MOST_CHARS = 1024


def addresses_of(url: str) -> Mapping[str, str]:
    """The built-in variables of a server that clients reach at ``url``."""
    url = url.rstrip("/")
    return MappingProxyType(dict(zip(BUILT_IN, (url, f"{url}/http"), strict=True)))


class EnvSettings(BaseSettings):
    """The variables that an app needs, declared once: ``class Settings(EnvSettings)`` with a field for each.

    The field ``stripe_key`` is the variable ``STRIPE_KEY``; pydantic-settings' ``env_prefix``, ``case_sensitive`` and aliases
    count. Functions get it by ``ctx.env.settings(Settings)``. Code is not served while a variable is missing or does not
    fit, and then none can be removed, or set to what does not fit.
    """

    model_config = {"frozen": True}

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The deployment's variables alone count, not those of the server's process."""
        return (init_settings,)


class _Source(EnvSettingsSource):
    """Reads the fields of a settings class from given variables."""

    def __init__(self, settings: type[EnvSettings], values: Mapping[str, str]) -> None:
        self._values = values
        super().__init__(settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _Named(self._values, self.case_sensitive)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            # Not with its cause, which repeats the value.
            raise EnvironmentVariableError(
                f"{_where(self.settings_cls)}: the environment variable {self.variable(field_name)} is a list, mapping or model, "
                "and does not hold JSON."
            ) from None

    def variable(self, field: str) -> str:
        """The variable that a field is read from."""
        name = self._extract_field_info(self.settings_cls.model_fields[field], field)[0][1]
        return name if self.case_sensitive else name.upper()


class _Named(Mapping[str, str | None]):
    """Variables by the names that pydantic-settings looks for, which are in lower case unless case counts."""

    def __init__(self, values: Mapping[str, str], case_sensitive: bool) -> None:
        self._values = values
        self._case_sensitive = case_sensitive

    def __getitem__(self, name: str) -> str | None:
        value = self._values.get(name if self._case_sensitive else name.upper())
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values) if self._case_sensitive else (name.lower() for name in self._values)

    def __len__(self) -> int:
        return len(self._values)


class _LookedUp(Mapping[str, str]):
    """Variables, and which of them were asked for with what answer; None when all were."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.names: dict[str, str | None] | None = {}

    def __getitem__(self, name: str) -> str:
        value = self._values.get(name)
        if self.names is not None:
            self.names[name] = value
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        self.names = None
        return iter(self._values)

    def __len__(self) -> int:
        self.names = None
        return len(self._values)


class _Fitted(NamedTuple):
    """Settings that were made, and of which values: as long as those are the same, so are these."""

    looked_up: Mapping[str, str | None]
    settings: EnvSettings


#: pydantic-settings takes 0.3 ms to make one, many times what a query takes.
_fitted: WeakKeyDictionary[type[EnvSettings], _Fitted] = WeakKeyDictionary()


class Environment(Mapping[str, str]):
    """``ctx.env``: environment variables of the deployment. A query that reads one runs again when it changes.

    Made by the runner, for one run.
    """

    __slots__ = ("_built_in", "_engine", "_known", "_tx")

    def __init__(self, engine: Engine, built_in: Mapping[str, str], tx: Transaction | None) -> None:
        self._engine = engine
        self._built_in = built_in
        self._tx = tx
        self._known: dict[str, str | None] = {}

    def __getitem__(self, name: str) -> str:
        """The variable's value.

        Raises:
            EnvironmentVariableError: it is not set.
        """
        value = self._find(name)
        if value is None:
            raise EnvironmentVariableError(
                f"The environment variable {str(name)[:100]} is not set. Set it with: reactor env set {str(name)[:100]} VALUE"
            )
        return value

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str) -> str: ...
    @overload
    def get(self, name: str, /, default: D) -> str | D: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """The variable's value, or ``default`` when it is not set."""
        value = self._find(name)
        return default if value is None else value

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def settings(self, settings: type[S], /) -> S:
        """The variables that ``settings`` declares, validated.

        Raises:
            EnvironmentVariableError: one is missing, or does not fit.
        """
        fitted = _fitted.get(settings)
        if fitted is None or any(self.get(name) != value for name, value in fitted.looked_up.items()):
            looked_up = _LookedUp(self)
            made = _load(settings, looked_up)
            if looked_up.names is None:
                return made
            fitted = _fitted[settings] = _Fitted(looked_up.names, made)
        # A copy: what one run does to a list in it, no other may see.
        return cast(S, fitted.settings.model_copy(deep=True))

    def _find(self, name: object) -> str | None:
        if not isinstance(name, str):
            raise TypeError(f"ctx.env takes the name of a variable, not {name!r}.")
        if name in self._built_in:
            return self._built_in[name]
        if len(name) > MOST_CHARS:
            return None  # it can never be set, and is not worth to be kept in mind
        tx, engine = self._tx, self._engine
        if tx is None:
            return _value(engine.environment.newest.get(_id(self._table.number, name)))
        tx.check_open()
        if name not in self._known:
            table = self._table
            self._known[name] = _value(tx.get_resident(engine.environment, table, _id(table.number, name)))
        return self._known[name]

    def _all(self) -> Mapping[str, str]:
        tx, engine = self._tx, self._engine
        texts = engine.environment.newest.values() if tx is None else tx.all_resident(engine.environment, self._table)
        return {**_values(texts), **self._built_in}

    @property
    def _table(self) -> Table:
        return self._engine.catalog.tables[ENVIRONMENT]


@lru_cache(maxsize=4096)
def _id(table_number: int, name: str) -> str:
    return encode_id(table_number, hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:16])


def _value(json: str | None) -> str | None:
    if json is None:
        return None
    value: str = orjson.loads(json)["value"]
    return value


def _values(texts: Iterable[str]) -> dict[str, str]:
    rows = [orjson.loads(text) for text in texts]
    return {row["name"]: row["value"] for row in sorted(rows, key=lambda row: str(row["name"]))}


# --- settings


def _load(settings: type[S], values: Mapping[str, str]) -> S:
    source = _Source(settings, values)
    try:
        return settings(**source())
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    raise EnvironmentVariableError(
        f"{'; '.join(_problem(settings, source, problem) for problem in found)}. Set it with: reactor env set NAME VALUE",
        code="MissingEnvironmentVariables" if all(map(_is_missing, found)) else "InvalidEnvironmentVariable",
    )


def _problem(settings: type[EnvSettings], source: _Source, found: Any) -> str:
    field = str(found["loc"][0]) if found["loc"] else ""
    names = {name: source.variable(name) for name in settings.model_fields}
    names |= {info.alias: names[name] for name, info in settings.model_fields.items() if info.alias is not None}
    if _is_missing(found):
        return f"{_where(settings)} needs the environment variable {names.get(field, field)}, which is not set"
    return f"{_where(settings)}: the environment variable {names.get(field, field) or 'of a field'} does not fit: {found['msg']}"


def _is_missing(found: Any) -> bool:
    return found["type"] == "missing" and len(found["loc"]) == 1


def _where(settings: type[Any]) -> str:
    return f"{settings.__module__}.{settings.__name__}"


def check_settings(settings: Iterable[type[EnvSettings]], values: Mapping[str, str]) -> None:
    """Check variables against what an app declares.

    Raises:
        EnvironmentVariableError: codes ``MissingEnvironmentVariables`` and ``InvalidEnvironmentVariable``.
    """
    for declared in settings:
        _load(declared, values)


# --- changing


def variables(engine: Engine) -> dict[str, str]:
    """All variables that are set, by name, as of the newest commit."""
    return _values(engine.environment.newest.values())


async def change_variables(
    engine: Engine,
    changes: Mapping[str, str | None],
    *,
    check: Callable[[Mapping[str, str]], None] | None = None,
    built_in: Mapping[str, str] = MappingProxyType({}),
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Set variables, and remove those whose new value is None, in one commit. One that is not set may be removed.

    Args:
        check: raises when the app cannot be served with the variables that there are afterwards.
        built_in: what is not set but has a value.

    Raises:
        EnvironmentVariableError: a name or value cannot be, or there would be too many; nothing has changed.
        What ``check`` raises; the same.
        StoreError: nothing could be written.
    """
    for name, value in changes.items():
        _check(name, value, limits)

    async def run(tx: Transaction) -> Answer:
        table = engine.catalog.tables[ENVIRONMENT]
        values = _values(tx.all_resident(engine.environment, table))
        after = {name: value for name, value in {**values, **changes}.items() if value is not None}
        _check_total(after, limits)
        if check is not None:
            check({**after, **built_in})
        for name, value in changes.items():
            await _write(tx, table, name, value)
        return Answer(b"null")

    await engine.mutate(run)


async def _write(tx: Transaction, table: Table, name: str, value: str | None) -> None:
    id = _id(table.number, name)
    before = await tx.get(table, id)
    if value is None:
        if before is not None:
            tx.write(table, id, before, None, (), 0)
        return
    created = tx.next_creation_time() if before is None else orjson.loads(before.json)["_creationTime"]
    fields = {"name": name, "value": value}
    text = codec.to_json({**fields, "_id": id, "_creationTime": created}).decode()
    tx.write(table, id, before, text, table.keys(fields, created, id), codec.size(fields))


def _check(name: str, value: str | None, limits: Limits) -> None:
    if name in BUILT_IN:
        raise EnvironmentVariableError(f"{name} says where this server is, and cannot be set or removed.", code="EnvVarNameForbidden")
    if len(name) > limits.env_name_chars:
        raise EnvironmentVariableError(
            f"The name {name[:50]}… has {len(name)} characters, at most {limits.env_name_chars} can be.",
            code="EnvironmentVariableNameTooLong",
        )
    if not _NAME.fullmatch(name):
        raise EnvironmentVariableError(
            f"{name!r} is no name of an environment variable: a letter of ASCII, then letters, digits and '_'.",
            code="EnvironmentVariableNameInvalid",
        )
    if value is None:
        return
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise EnvironmentVariableError(f"The value of {name} is not text: it has half a surrogate pair.") from None
    if size > limits.env_value_bytes:
        raise EnvironmentVariableError(
            f"The value of {name} has {size} bytes, at most {limits.env_value_bytes} can be. Keep it in a document or a file.",
            code="EnvironmentVariableValueTooLarge",
        )


def _check_total(values: Mapping[str, str], limits: Limits) -> None:
    if len(values) > limits.env_variables:
        raise EnvironmentVariableError(
            f"There would be {len(values)} environment variables, at most {limits.env_variables} can be.", code="EnvVarLimitMet"
        )
    size = sum(len(name.encode()) + len(value.encode()) for name, value in values.items())
    if size > limits.env_total_bytes:
        raise EnvironmentVariableError(
            f"All environment variables together would have {size} bytes, at most {limits.env_total_bytes} can be.",
            code="EnvVarTotalSizeLimitMet",
        )
