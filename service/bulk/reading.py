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
from typing import NamedTuple, Self

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


class Subjects(NamedTuple):
    """Whom rows are about, by number: None for nobody; what is no text is to be refused."""

    column: str
    names: Mapping[int, Cell]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of a file; the first row after the header has number 1.

    rows: number and instance of each; broken: number and reason of those that are none. subjects:
    None of a table without them.
    """

    rows: Sequence[tuple[int, Instance]]
    broken: Mapping[int, str]
    subjects: Subjects | None = None


class _TableRow(NamedTuple):
    instance: Instance
    subject: Cell


@dataclass(frozen=True, slots=True)
class Table:
    """A file whose columns a model can read.

    digest: of the file's bytes. n_rows: of Parquet exact; of CSV the lines, which is at least the
    rows. ignored: columns the model does not have. subject_column: says whom each row is about,
    and is none of the model's.
    """

    path: Path
    schema: ModelSchema
    digest: str
    n_rows: int
    ignored: tuple[str, ...]
    subject_column: str | None
    _names: tuple[str, ...]
    _stamp: tuple[int, int]

    @classmethod
    def open(cls, path: Path, schema: ModelSchema, *, subject_column: str | None = None) -> Self:
        """Read the header, count and digest, in one pass. Raises InvalidInputError."""
        names, stamp = column_names(path), _stamp(path)
        absent = [c.name for c in schema.columns if c.is_required and c.name not in names]
        if absent:
            raise InvalidInputError(
                f"{path} lacks columns the model reads: {', '.join(map(repr, absent[:10]))}"
            )
        if subject_column is not None:
            _check_subject_column(path, subject_column, names, schema)
        digest, lines = _digest_and_lines(path)
        known = {*schema.names, subject_column}
        return cls(
            path=path,
            schema=schema,
            digest=digest,
            n_rows=_parquet(path).metadata.num_rows if _is_parquet(path) else max(0, lines - 1),
            ignored=tuple(name for name in names if name not in known),
            subject_column=subject_column,
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
            found = [(number, row) for number, row in taken if not isinstance(row, str)]
            broken = {number: reason for number, reason in taken if isinstance(reason, str)}
            subjects = None
            if self.subject_column is not None:
                names = {number: row.subject for number, row in found}
                subjects = Subjects(self.subject_column, names)
            yield Chunk([(number, row.instance) for number, row in found], broken, subjects)
        if _stamp(self.path) != self._stamp:
            raise InvalidInputError(f"{self.path} was changed while it was read")

    def _rows(self) -> Iterator[_TableRow | str]:
        try:
            yield from self._parquet_rows() if _is_parquet(self.path) else self._csv_rows()
        except (OSError, ValueError, csv.Error) as error:
            raise unreadable(self.path, error) from error

    def _parquet_rows(self) -> Iterator[_TableRow]:
        known = [name for name in self._names if name not in set(self.ignored)]
        for batch in _parquet(self.path).iter_batches(BATCH_ROWS, columns=known):
            values = batch.to_pydict()
            subjects = values.pop(self.subject_column, [None] * len(batch))
            columns = [map(_value, column) for column in values.values()]
            for subject, *cells in zip(subjects, *columns, strict=True):
                yield _TableRow(dict(zip(values, cells, strict=True)), _subject(subject))

    def _csv_rows(self) -> Iterator[_TableRow | str]:
        columns = {column.name: column for column in self.schema.columns}
        read = [(i, columns[name]) for i, name in enumerate(self._names) if name in columns]
        subject = None
        if self.subject_column is not None:
            subject = self._names.index(self.subject_column)
        with self.path.open(newline="", encoding=ENCODING) as lines:
            rows = csv.reader(lines, strict=True)
            next(rows)
            for fields in rows:
                if len(fields) == len(self._names):
                    instance = {column.name: _parsed(fields[i], column) for i, column in read}
                    yield _TableRow(instance, None if subject is None else fields[subject] or None)
                elif fields:
                    expected = len(self._names)
                    yield f"has {len(fields)} fields, the header has {expected}"


def _check_subject_column(
    path: Path, column: str, names: Sequence[str], schema: ModelSchema
) -> None:
    if column not in names:
        raise InvalidInputError(f"{path} has no column {column!r} that says whom a row is about")
    if column in schema.names:
        raise InvalidInputError(
            f"the model reads {column!r}: whom a row is about must stand in a column of its own"
        )


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


def _subject(value: object) -> Cell:
    """A Parquet cell as the text that CSV would hold; False, to be refused, where it is neither
    text nor a whole number. 4711.0 is what becomes of 4711 in a column with gaps: nobody would ask
    for somebody by that name.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return (value or None) if isinstance(value, str) else False


def _value(value: object) -> Cell:
    """A Parquet cell as JSON would hold it; as text where it cannot, to be refused."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return f"a value of type {type(value).__name__}"
