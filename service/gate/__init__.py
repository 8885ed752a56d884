"""May a new version replace an old one: both on the same rows, check by check."""

from service.gate.bounds import Bounds
from service.gate.comparing import Gate, named_version
from service.gate.findings import Finding, GateReport
from service.gate.rows import InstanceRows, Rows, rows_of_file, stored_rows
from service.gate.sides import Depth

__all__ = [
    "Bounds",
    "Depth",
    "Finding",
    "Gate",
    "GateReport",
    "InstanceRows",
    "Rows",
    "named_version",
    "rows_of_file",
    "stored_rows",
]
