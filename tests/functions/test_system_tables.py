"""The system's own documents: read like any others, written by what keeps them alone."""

from __future__ import annotations

from typing import Any

import pytest

from reactor import Id, IdError, MutationCtx, SchemaError, StoredFile
from reactor.functions.database import system
from reactor.testing import TestBackend
from reactor.values.ids import table_number_of
from tests.functions.app.schema import Item

pytestmark = pytest.mark.anyio

FILE = StoredFile(sha256="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", size=0, content_type=None)


async def keep(t: TestBackend) -> Id[StoredFile]:
    """Insert ``FILE``, as reactor does."""

    async def insert(ctx: MutationCtx) -> Id[StoredFile]:
        return await system(ctx.db).insert(FILE)

    return await t.run(insert)


async def test_a_system_document_is_read_as_any_other(t: TestBackend) -> None:
    id = await keep(t)

    async def read(ctx: MutationCtx) -> None:
        found = await ctx.db.get(id)
        assert found is not None and (found.id, found.sha256, found.size, found.content_type) == (id, FILE.sha256, 0, None)
        assert await ctx.db.get(StoredFile, id) == found
        assert await ctx.db.query(StoredFile).collect() == [found]
        assert ctx.db.normalize_id(StoredFile, id) == id
        assert ctx.db.normalize_id(Item, id) is None
        with pytest.raises(IdError, match="Expected an id of table 'items', got an id of table '_storage'"):
            await ctx.db.get(Item, id)

    await t.run(read)


async def test_its_id_is_that_of_a_table_below_the_apps(t: TestBackend) -> None:
    assert table_number_of(await keep(t)) < 10_001


@pytest.mark.parametrize("write", ["insert", "patch", "replace", "delete"])
async def test_functions_cannot_write_it(t: TestBackend, write: str) -> None:
    id = await keep(t)
    writes: dict[str, Any] = {
        "insert": lambda db: db.insert(FILE),
        "patch": lambda db: db.patch(id, size=1),
        "replace": lambda db: db.replace(id, FILE),
        "delete": lambda db: db.delete(id),
    }
    with pytest.raises(SchemaError, match="Table '_storage' is reactor's own: functions read it") as refused:
        await t.run(lambda ctx: writes[write](ctx.db))
    assert refused.value.code == "ReadOnlyTable"
    assert await t.run(lambda ctx: ctx.db.get(id)) is not None


async def test_an_app_may_import_it_into_its_schema(t: TestBackend) -> None:
    from reactor.schema.catalog import Catalog
    from reactor.schema.system import SYSTEM

    catalog = Catalog.of({"Item": Item, "StoredFile": StoredFile}, SYSTEM)
    assert catalog.tables["_storage"].readable and not catalog.tables["_storage"].writable
    assert catalog.table_named_by("StoredFile") == "_storage"
