"""Reads tables out of a FlatBuffers file, never beyond its bytes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, IntArray

UINT32 = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Table:
    """One table: `fields[i]` is where the value of field i lies, for the fields that are set.

    All methods raise ValueError when an offset leads outside the file, and KeyError for a field
    that is not set. Source: the FlatBuffers internals document.
    """

    data: bytes
    fields: dict[int, int]

    @classmethod
    def root(cls, data: bytes) -> "Table":
        """The file's outermost table."""
        return cls._at(data, _number(data, 0, UINT32))

    @classmethod
    def _at(cls, data: bytes, start: int) -> "Table":
        layout = start - _number(data, start, np.dtype("<i4"))
        count = (_number(data, layout, np.dtype("<u2")) - 4) // 2
        if count < 0:
            raise ValueError("a table's layout is too short")
        offsets = _numbers(data, layout + 4, count, np.dtype("<u2")).tolist()
        return cls(data, {field: start + offset for field, offset in enumerate(offsets) if offset})

    def integer(self, field: int, *, kind: str = "<i4", default: int) -> int:
        """An integer of numpy's dtype `kind`; the default when it is not set."""
        place = self.fields.get(field)
        return default if place is None else _number(self.data, place, np.dtype(kind))

    def integers(self, field: int, kind: str) -> IntArray:
        """A vector of integers of numpy's dtype `kind`."""
        return self._vector(field, kind).astype(np.int64)

    def reals(self, field: int, kind: str) -> FloatArray:
        """A vector of numbers of numpy's dtype `kind`."""
        with np.errstate(invalid="ignore"):  # a signalling NaN warns when it is widened
            return self._vector(field, kind).astype(np.float64)

    def text(self, field: int) -> str:
        """A string."""
        return self._text(self.fields[field])

    def texts(self, field: int) -> list[str]:
        """A vector of strings; empty when not set."""
        return [self._text(place) for place in self._places(field)]

    def table(self, field: int) -> "Table":
        """A table inside this one."""
        return Table._at(self.data, _target(self.data, self.fields[field]))

    def tables(self, field: int) -> list["Table"]:
        """A vector of tables; empty when not set."""
        return [Table._at(self.data, _target(self.data, place)) for place in self._places(field)]

    def _vector(self, field: int, kind: str) -> NDArray[Any]:
        start, count = _extent(self.data, self.fields[field])
        return _numbers(self.data, start, count, np.dtype(kind))

    def _places(self, field: int) -> list[int]:
        if field not in self.fields:
            return []
        start, count = _extent(self.data, self.fields[field])
        _numbers(self.data, start, count, UINT32)
        return [start + UINT32.itemsize * index for index in range(count)]

    def _text(self, place: int) -> str:
        start, count = _extent(self.data, place)
        return _numbers(self.data, start, count, np.dtype("u1")).tobytes().decode("utf-8")


def _extent(data: bytes, place: int) -> tuple[int, int]:
    start = _target(data, place)
    return start + UINT32.itemsize, _number(data, start, UINT32)


def _target(data: bytes, place: int) -> int:
    return place + _number(data, place, UINT32)


def _number(data: bytes, place: int, kind: np.dtype[Any]) -> int:
    return int(_numbers(data, place, 1, kind)[0])


def _numbers(data: bytes, start: int, count: int, kind: np.dtype[Any]) -> NDArray[Any]:
    if start < 0 or start + count * kind.itemsize > len(data):
        raise ValueError(f"an offset leads to byte {start} of {len(data)}")
    return np.frombuffer(data, kind, count, start)
