"""Explanations of a whole table: through the same records, queue and workers as everything else."""

from service.bulk.reading import Table
from service.bulk.running import Bulk, BulkReport, Progress

__all__ = ["Bulk", "BulkReport", "Progress", "Table"]
