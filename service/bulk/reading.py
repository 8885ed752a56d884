"""Rows of a CSV or Parquet file, a chunk at a time, as instances that a model's schema may take."""

import csv
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Self

from schemas import Column, Level, ModelSchema
from service.errors import InvalidInputError
from service.registry.tables import ENCODING, PARQUET, column_names, unreadable

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
INTEGER_DIGITS = 18
TRUTH = {"true": True, "false": False}
BLOCK_BYTES = 1 << 20
BATCH_ROWS = 4096

Cell = Level | None
Instance = Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of a file; the first row after the header has number 1.

    rows: number and instance of each; broken: number and reason of those that are none.
    """

    rows: Sequence[tuple[int, Instance]]
    broken: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A file whose columns a model can read.

    digest: of the file's bytes. n_rows: of Parquet exact; of CSV the lines, which is at least the
    rows. ignored: columns the model does not have.
    """

    path: Path
    schema: ModelSchema
    digest: str
    n_rows: int
    ignored: tuple[str, ...]
    _names: tuple[str, ...]
    _stamp: tuple[int, int]

    @classmethod
    def open(cls, path: Path, schema: ModelSchema) -> Self:
        """Read the header, count and digest, in one pass. Raises InvalidInputError."""
        names, stamp = column_names(path), _stamp(path)
        absent = [c.name for c in schema.columns if c.is_required and c.name not in names]
        if absent:
            raise InvalidInputError(
                f"{path} lacks columns the model reads: {', '.join(map(repr, absent[:10]))}"
            )
        digest, lines = _digest_and_lines(path)
        known = frozenset(schema.names)
        return cls(
            path=path,
            schema=schema,
            digest=digest,
            n_rows=_parquet(path).metadata.num_rows if _is_parquet(path) else max(0, lines - 1),
            ignored=tuple(name for name in names if name not in known),
            _names=tuple(names),
            _stamp=stamp,
        )

    def chunks(self, size: int) -> Iterator[Chunk]:
        """All rows in order, `size` at a time.

        Raises InvalidInputError for a file out of order, and at the end for one that was changed
        since its digest was taken.
        """
        numbered = enumerate(self._rows(), start=1)
        while taken := list(islice(numbered, size)):
            rows = [(number, found) for number, found in taken if not isinstance(found, str)]
            broken = {number: found for number, found in taken if isinstance(found, str)}
            yield Chunk(rows, broken)
        if _stamp(self.path) != self._stamp:
            raise InvalidInputError(f"{self.path} was changed while it was read")

    def _rows(self) -> Iterator[Instance | str]:
        try:
            yield from self._parquet_rows() if _is_parquet(self.path) else self._csv_rows()
        except (OSError, ValueError, csv.Error) as error:
            raise unreadable(self.path, error) from error

    def _parquet_rows(self) -> Iterator[Instance]:
        known = [name for name in self._names if name not in set(self.ignored)]
        for batch in _parquet(self.path).iter_batches(BATCH_ROWS, columns=known):
            columns = [map(_value, column.to_pylist()) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                yield dict(zip(batch.schema.names, cells, strict=True))

    def _csv_rows(self) -> Iterator[Instance | str]:
        columns = {column.name: column for column in self.schema.columns}
        read = [(i, columns[name]) for i, name in enumerate(self._names) if name in columns]
        with self.path.open(newline="", encoding=ENCODING) as lines:
            rows = csv.reader(lines, strict=True)
            next(rows)
            for fields in rows:
                if len(fields) == len(self._names):
                    yield {column.name: _parsed(fields[i], column) for i, column in read}
                elif fields:
                    expected = len(self._names)
                    yield f"has {len(fields)} fields, the header has {expected}"


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return status.st_mtime_ns, status.st_size


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET


def _parquet(path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def _digest_and_lines(path: Path) -> tuple[str, int]:
    sha256, lines, last = hashlib.sha256(), 0, b"\n"
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                sha256.update(block)
                lines += block.count(b"\n")
                last = block[-1:]
    except OSError as error:
        raise unreadable(path, error) from error
    return f"sha256:{sha256.hexdigest()}", lines + (last != b"\n")


def _parsed(text: str, column: Column) -> Cell:
    """A CSV field as the column's type; as the text it is where it is none, to be refused."""
    if text == "":
        return None
    scalar = column.level_type or column.kind
    if scalar == "string":
        return text
    stripped = text.strip()
    if scalar == "boolean":
        return TRUTH.get(stripped.lower(), text)
    if INTEGER.fullmatch(stripped):
        # More digits would be rounded silently, as a float.
        return int(stripped) if len(stripped) < INTEGER_DIGITS else text
    number = float(stripped) if NUMBER.fullmatch(stripped) else math.nan
    return number if math.isfinite(number) else text


def _value(value: object) -> Cell:
    """A Parquet cell as JSON would hold it; as text where it cannot, to be refused."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return f"a value of type {type(value).__name__}"
