import pytest

from app_functions import tasks
from reactor import AppError
from reactor.testing import TestBackend


@pytest.mark.anyio
async def test_a_task_is_open_until_it_is_done(backend: TestBackend) -> None:
    task = await backend.mutation(tasks.add, text="Write a function")
    assert await backend.query(tasks.count_open) == 1
    await backend.mutation(tasks.set_done, task=task)
    assert await backend.query(tasks.count_open) == 0


@pytest.mark.anyio
async def test_a_task_without_a_text_is_refused(backend: TestBackend) -> None:
    with pytest.raises(AppError, match="needs a text"):
        await backend.mutation(tasks.add, text="  ")
