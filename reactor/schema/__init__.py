"""What users declare: documents, indexes, and the catalog of one schema."""

from reactor.schema.document import ABSENT, Absent, Document
from reactor.schema.index import Index, IndexRange, between, gt, gte, lt, lte
from reactor.schema.pagination import PaginationOptions, PaginationResult

__all__ = [
    "ABSENT",
    "Absent",
    "Document",
    "Index",
    "IndexRange",
    "PaginationOptions",
    "PaginationResult",
    "between",
    "gt",
    "gte",
    "lt",
    "lte",
]
