"""Reads UBJSON as XGBoost writes it, refusing what would crash XGBoost's own reader."""

import struct
from typing import Any

import numpy as np

from service.models.errors import ModelLoadError

NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
CONSTANTS = {"T": True, "F": False, "Z": None}
DEEPEST_NESTING = 64


def read_ubjson(data: bytes) -> Any:  # noqa: ANN401  # a document of any shape, like json.loads
    """The document; typed arrays come as numpy arrays. ModelLoadError when it is broken.

    Source: ubjson.org, draft 12, without its no-op, high-precision and sized-object forms.
    """
    reader = _Reader(data)
    try:
        document = reader.value(reader.marker(), depth=0)
    except (UnicodeDecodeError, struct.error, ValueError) as error:
        raise ModelLoadError(f"broken UBJSON before byte {reader.position}: {error}") from error
    if reader.position != len(data):
        raise ModelLoadError(f"{len(data) - reader.position} bytes follow the UBJSON document")
    return document


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def marker(self) -> str:
        return self._take(1).decode("latin-1")

    def value(self, marker: str, *, depth: int) -> Any:  # noqa: ANN401
        if depth > DEEPEST_NESTING:
            raise ValueError("nested too deeply")
        if marker in NUMBERS:
            return self._numbers(marker, 1)[0].item()
        if marker in CONSTANTS:
            return CONSTANTS[marker]
        if marker == "S":
            return self._text()
        if marker == "[":
            return self._array(depth)
        if marker == "{":
            return self._object(depth)
        raise ValueError(f"unknown marker {marker!r}")

    def _take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._data) - self.position:
            raise ValueError(f"{size} bytes announced, the data ends before them")
        start, self.position = self.position, self.position + size
        return self._data[start : self.position]

    def _numbers(self, marker: str, count: int) -> np.ndarray[Any, np.dtype[Any]]:
        kind = np.dtype(NUMBERS[marker])
        return np.frombuffer(self._take(count * kind.itemsize), dtype=kind)

    def _length(self) -> int:
        marker = self.marker()
        if marker not in "iUIlL":
            raise ValueError(f"a length of type {marker!r}")
        length = int(self._numbers(marker, 1)[0])
        if length < 0:
            raise ValueError(f"a length of {length}")
        return length

    def _text(self) -> str:
        return self._take(self._length()).decode("utf-8")

    def _array(self, depth: int) -> Any:  # noqa: ANN401
        marker = self.marker()
        if marker == "$":
            return self._typed_array()
        if marker == "#":
            count = self._length()
            # Every element takes at least a byte: a huge count fails before any memory is taken.
            return [self.value(self.marker(), depth=depth + 1) for _ in range(count)]
        values = []
        while marker != "]":
            values.append(self.value(marker, depth=depth + 1))
            marker = self.marker()
        return values

    def _typed_array(self) -> Any:  # noqa: ANN401
        kind = self.marker()
        if kind not in NUMBERS or self.marker() != "#":
            raise ValueError(f"a typed array of {kind!r}")
        numbers = self._numbers(kind, self._length())
        return numbers.astype(numbers.dtype.newbyteorder("="))

    def _object(self, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while self._data[self.position : self.position + 1] != b"}":
            name = self._text()
            entries[name] = self.value(self.marker(), depth=depth + 1)
        self._take(1)
        return entries
