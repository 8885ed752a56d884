"""Rows of raw columns as the body of POST /predict, and pointers into it back to where the client
wrote what they point to.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from schemas import Column, Level, Violation
from service.errors import InvalidRequestError, ServiceError

PARTS_OF_A_CELL = 4
"""Of the pointer /instances/0/age, split at its slashes."""

PointerOf = Callable[[int, str], str | None]
"""Where the client wrote the cell of that row and column; None where he did not."""


def body_of(document: Mapping[str, object], pointer: str) -> bytes:
    """The body of POST /predict; InvalidRequestError at that pointer for an infinity, which is how
    a number that overflows is read.
    """
    try:
        return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        detail = "holds a number beyond what can be represented"
        overflow = Violation(pointer, detail, "out_of_range")
    raise refusal(overflow)


def refusal(*found: Violation) -> InvalidRequestError:
    """That the content does not fit, and where."""
    return InvalidRequestError("see errors", errors=found)


def adapted(cell: Level | None, column: Column) -> Level | None:
    """A tensor's cell as the column's JSON type, where both are one number: tensors have one type
    for all cells, and matrices one for all columns.
    """
    wanted = column.level_type or column.kind
    if cell is None or type(cell) is bool or isinstance(cell, str):
        return cell
    if wanted == "boolean" and cell in (0, 1):
        return bool(cell)
    if wanted == "integer" and float(cell).is_integer():
        return int(cell)
    return float(cell) if wanted == "number" else cell


@dataclass(frozen=True, slots=True)
class Places:
    """Turns pointers into the body of POST /predict into pointers into what the client sent.

    rows: for those to no cell; None where the client wrote rows too.
    """

    cell: PointerOf
    rows: str | None
    subjects: str

    def error(self, error: ServiceError) -> ServiceError:
        """The same refusal, about what the client sent."""
        if not isinstance(error, InvalidRequestError):
            return error
        moved = dict.fromkeys(map(self._violation, error.errors))
        return InvalidRequestError(str(error), errors=tuple(moved))

    def pointer(self, pointer: str) -> str:
        """Of a warning."""
        return self._moved(pointer) or pointer

    def _violation(self, found: Violation) -> Violation:
        moved = self._moved(found.pointer)
        if moved is not None:
            return replace(found, pointer=moved)
        column = _unescaped(found.pointer.split("/", PARTS_OF_A_CELL - 1)[-1])
        return Violation(self.rows or "", f"the column {column!r} {found.detail}", found.code)

    def _moved(self, pointer: str) -> str | None:
        """None for a column that the client did not send."""
        parts = pointer.split("/", PARTS_OF_A_CELL - 1)
        if parts[1:2] == ["subjects"]:
            return self.subjects + "".join(f"/{part}" for part in parts[2:])
        if parts[1:2] != ["instances"]:
            return pointer
        if len(parts) < PARTS_OF_A_CELL:
            return self.rows or pointer
        return self.cell(int(parts[2]), _unescaped(parts[3]))


def moved_warnings(
    warnings: Iterable[Mapping[str, str]] | None, places: Places
) -> list[dict[str, str]]:
    """An answer's warnings, about what the client sent."""
    return [{**found, "pointer": places.pointer(found["pointer"])} for found in warnings or ()]


def _unescaped(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")
