"""Explanations of a whole table: through the same records, queue and workers as everything else."""

from service.bulk.opening import DEFAULT_CHUNK_ROWS, Order, explain_table
from service.bulk.reading import Table
from service.bulk.running import BulkReport, Progress

__all__ = ["DEFAULT_CHUNK_ROWS", "BulkReport", "Order", "Progress", "Table", "explain_table"]
