"""Evidence for auditors: bundles of a log, and the check of the database itself."""

from service.bundles.selecting import Selection
from service.bundles.writing import Exported, Exporter

__all__ = ["Exported", "Exporter", "Selection"]
