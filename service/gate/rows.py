"""The rows two versions are compared on: of a table file, or of the last decisions that are stored.

Each version reads them by its own schema, as the service would.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import orjson

from explainers.base import FloatArray
from service.accesses import at_the_machine, note
from service.bulk.checking import check
from service.bulk.reading import Chunk, Table
from service.errors import InvalidInputError, UnavailableError
from service.evidence import DecisionFilter, EvidenceError, EvidenceStore, Record
from service.registry import RegisteredModel
from service.registry.inference import draw_rows
from service.registry.tables import ENCODING, PARQUET, column_names, read_frame, unreadable

if TYPE_CHECKING:
    from schemas import Level

CHUNK_ROWS = 2000
PAGE = 200
LINES = frozenset({".jsonl", ".ndjson"})


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What one version makes of the rows: X (N, F) in its coding, the numbers of these rows, and
    the reasons of those it refuses.
    """

    numbers: tuple[int, ...]
    X: FloatArray
    refused: Mapping[int, str] = field(default_factory=dict)

    def only(self, numbers: Sequence[int]) -> FloatArray:
        """The rows of these numbers, in their order."""
        place = {number: i for i, number in enumerate(self.numbers)}
        rows: FloatArray = self.X[[place[number] for number in numbers]]
        return rows


class Rows(Protocol):
    """Rows that any version may read."""

    @property
    def origin(self) -> str:
        """Where they are from."""
        ...

    def read_by(self, model: RegisteredModel) -> Read:
        """Raises InvalidInputError where the model lacks columns it must have."""
        ...

    def labels(self, numbers: Sequence[int]) -> Sequence[object] | None:
        """What came out, of these rows; None where that is not said."""
        ...


@dataclass(frozen=True, slots=True)
class TableRows:
    """A CSV or Parquet file; chosen: the numbers of the rows that are drawn from it."""

    path: Path
    chosen: frozenset[int]
    label_column: str | None

    @property
    def origin(self) -> str:
        """Where they are from."""
        return str(self.path)

    def read_by(self, model: RegisteredModel) -> Read:
        """By the model's types."""
        return _read(model, self._chunks(model))

    def _chunks(self, model: RegisteredModel) -> Iterator[Chunk]:
        for chunk in Table.open(self.path, model.schema).chunks(CHUNK_ROWS):
            rows = [(number, row) for number, row in chunk.rows if number in self.chosen]
            broken = {n: reason for n, reason in chunk.broken.items() if n in self.chosen}
            yield Chunk(rows, broken)

    def labels(self, numbers: Sequence[int]) -> Sequence[object] | None:
        """The label column's cells."""
        if self.label_column is None:
            return None
        cells = read_frame(self.path)[self.label_column]
        return _present([cells.iloc[number - 1] for number in numbers], self.label_column)


@dataclass(frozen=True, slots=True)
class InstanceRows:
    """JSON instances, of a file or the store; given: what came out of each, or None."""

    origin: str
    instances: Sequence[Mapping[str, "Level | None"]]
    given: Sequence[object] | None = None

    def read_by(self, model: RegisteredModel) -> Read:
        """By the model's types; columns it does not have are left out."""
        names = model.schema.names
        rows = [
            (number, {name: row[name] for name in names if name in row})
            for number, row in enumerate(self.instances, start=1)
        ]
        return _read(model, iter([Chunk(rows, {})]))

    def labels(self, numbers: Sequence[int]) -> Sequence[object] | None:
        """What was given with them."""
        if self.given is None:
            return None
        return [self.given[number - 1] for number in numbers]


def _read(model: RegisteredModel, chunks: Iterator[Chunk]) -> Read:
    numbers: list[int] = []
    codes: list[Sequence[float]] = []
    refused: dict[int, str] = {}
    for chunk in chunks:
        accepted, reasons = check(model.codec, chunk)
        refused |= reasons
        if accepted is not None:
            numbers += accepted.numbers
            codes += accepted.body.codes
    X = np.array(codes, dtype=np.float64).reshape(len(codes), len(model.schema.columns))
    return Read(tuple(numbers), X, refused)


def rows_of_file(path: Path, *, most: int, seed: int, labels: str | None) -> Rows:
    """At most so many rows, drawn with the seed. Raises InvalidInputError."""
    if path.suffix.lower() in LINES:
        return _lines(path, most=most, seed=seed, labels=labels)
    names = column_names(path)
    if labels is not None and labels not in names:
        raise InvalidInputError(f"{path} has no column {labels!r}")
    total = _parquet_rows(path) if path.suffix.lower() in PARQUET else _csv_rows(path)
    chosen = frozenset((draw_rows(total, most, seed) + 1).tolist())
    return TableRows(path, chosen, labels)


def _parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _csv_rows(path: Path) -> int:
    import csv

    try:
        with path.open(newline="", encoding=ENCODING) as lines:
            return max(0, sum(1 for row in csv.reader(lines) if row) - 1)
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error


def _lines(path: Path, *, most: int, seed: int, labels: str | None) -> InstanceRows:
    """One JSON object a line."""
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
        chosen = [orjson.loads(lines[i]) for i in draw_rows(len(lines), most, seed)]
    except (OSError, orjson.JSONDecodeError) as error:
        raise unreadable(path, error) from error
    if not all(isinstance(row, dict) for row in chosen):
        raise InvalidInputError(f"{path}: every line must be a JSON object")
    given = None if labels is None else _present([row.get(labels) for row in chosen], labels)
    return InstanceRows(str(path), chosen, given)


def _present(cells: list[object], column: str) -> list[object]:
    missing = sum(cell is None or cell != cell for cell in cells)  # noqa: PLR0124 - NaN
    if missing:
        raise InvalidInputError(f"the labels {column!r} are missing in {missing} rows")
    return cells


def stored_rows(store: EvidenceStore, tenant: str, model: str, *, most: int) -> InstanceRows:
    """The rows of a model's last decisions, newest first, without what was erased, has expired or
    is in quarantine. That they were read is in the access log before any is used.

    Raises UnavailableError.
    """
    try:
        note(store, at_the_machine("compare", tenant, model=model, most=most))
        instances = _instances(store, tenant, model, most)
    except EvidenceError as error:
        raise UnavailableError(f"evidence store: {error}") from error
    return InstanceRows(f"the last decisions of {model}, tenant {tenant}", instances)


def _instances(
    store: EvidenceStore, tenant: str, model: str, most: int
) -> list[Mapping[str, "Level | None"]]:
    found: list[Mapping[str, Level | None]] = []
    cursor, now = None, datetime.now(UTC)
    while len(found) < most:
        matching = DecisionFilter(model=model)
        page = store.list(tenant, matching=matching, limit=PAGE, cursor=cursor)
        records = store.records([(tenant, item.request_id) for item in page.items])
        for record in records:
            if isinstance(record, Record) and may_be_used(record, now):
                rows = orjson.loads(record.decision.part("instances"))
                found += [row for row in rows if row is not None]
        cursor = page.next_cursor
        if cursor is None:
            break
    return found[:most]


def may_be_used(record: Record, now: datetime) -> bool:
    """It stands for a request of its own (what explains another again repeats its rows), is not in
    quarantine and has not expired.
    """
    is_own = record.decision.parent_request_id is None
    return is_own and record.hold != "quarantine" and not record.is_expired(now)
