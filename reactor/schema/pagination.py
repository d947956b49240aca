"""Pages: what a client asks for and what it gets."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["PaginationOptions", "PaginationResult"]

T = TypeVar("T")


class PaginationOptions(BaseModel):
    """Which page of a query. A parameter of this type is ``paginationOpts`` on the wire.

    Attributes:
        num_items: how many matching documents to find, 1 … 32,000.
        cursor: where the page begins: the previous page's ``continue_cursor``; None for the first.
        end_cursor: where it ends, instead of after ``num_items``.
        maximum_rows_read: stop early after this many documents, rejected ones included.
        maximum_bytes_read: stop early after this many bytes of documents.
        id: told apart by clients, without meaning here.
    """

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    num_items: int
    cursor: str | None = None
    end_cursor: str | None = None
    maximum_rows_read: Annotated[int, Field(gt=0)] | None = None
    maximum_bytes_read: Annotated[int, Field(gt=0)] | None = None
    id: Any = None


class PaginationResult(BaseModel, Generic[T]):
    """A page.

    Attributes:
        page: its documents.
        is_done: whether the end of the range was reached.
        continue_cursor: where the next page begins.
        split_cursor: a place inside the page to split it at.
        page_status: ``SplitRecommended`` or ``SplitRequired`` when the page is better, or has to be, split.
    """

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    page: list[T]
    is_done: bool
    continue_cursor: str
    split_cursor: str | None = None
    page_status: Literal["SplitRecommended", "SplitRequired"] | None = None
