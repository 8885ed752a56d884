"""The spool: sealed events on the local disk, kept while the evidence store is away."""

import contextlib
import fcntl
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from service.durability import make_directory
from service.evidence.errors import EventRefusedError, NothingWrittenError, StoreUnavailableError
from service.evidence.events import Row
from service.evidence.segments import SUFFIX, DamagedRowError, Segment, encode_row
from service.evidence.store import AppendOutcome, Outcome
from service.evidence.tables import INSERTED_COLUMNS
from service.logs import log
from service.uuid7 import uuid7

SEGMENT_BYTES = 16 * 1024 * 1024
"""A file that has reached it is finished: drained, it frees its space."""

KEY = INSERTED_COLUMNS.index("idempotency_key")
_LOCK = "lock"


class _Place(NamedTuple):
    segment: Segment
    offset: int


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Where the spool is, and how many bytes of it one process may fill."""

    directory: Path
    max_bytes: int = 256 * 1024 * 1024


class Spool:
    """The files this process owns in a directory that other processes of this machine share.

    A file belongs to the process that holds its lock; those of a process that is gone are adopted.
    `insert` is called by one thread, everything else by any. Which requests it holds is kept in
    memory, 0.3 KiB for each. on_damaged: called, by any thread, for each file that is damaged; it
    is put aside as `.damaged` when what is good in it has been stored.
    """

    def __init__(self, limits: SpoolLimits, on_damaged: Callable[[], None] = lambda: None) -> None:
        self._on_damaged = on_damaged
        self._directory = limits.directory
        self._max_bytes = limits.max_bytes
        self._active: Segment | None = None
        self._finished: tuple[Segment, ...] = ()
        self._index: dict[str, _Place] = {}
        self._refused: set[Path] = set()
        self._lock = Lock()
        self.is_failing = False
        """The last insert failed."""

    def insert(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        """Append rows durably: SPOOLED for each, but for one that no file can hold.

        Raises StoreUnavailableError, and keeps none; but what a failed write left of them may be
        taken for a row after a power cut. Before it writes, NothingWrittenError.
        """
        try:
            return self._insert(rows)
        except UnicodeEncodeError:  # before anything is written
            fit = [_can_be_encoded(row) for row in rows]
            kept = [row for row, is_fit in zip(rows, fit, strict=True) if is_fit]
            spooled = iter(self._insert(kept) if kept else ())  # all or none, in one write
            refusal = EventRefusedError("the event cannot be spooled (UnicodeEncodeError)")
            return [next(spooled) if is_fit else refusal for is_fit in fit]

    def _insert(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        with self._lock:
            try:
                segment = self._writable()
            except OSError as error:
                self.is_failing = True
                raise NothingWrittenError(f"the spool: {error}") from error
            try:
                self._append(segment, rows)
            except OSError as error:
                self.is_failing = True
                raise StoreUnavailableError(f"the spool: {error}") from error
        self.is_failing = False
        return [AppendOutcome.SPOOLED] * len(rows)

    def holds(self, key: str) -> bool:
        """An event of this idempotency key waits here. Cost: 0.1 us."""
        return key in self._index

    def find(self, key: str) -> Row | None:
        """The event of this idempotency key, None if it waits here no more."""
        with self._lock:
            place = self._index.get(key)
            row = None if place is None else place.segment.row_at(place.offset)
            return None if place is None or row is None else _in_order(place.segment)(row)

    def records(self) -> int:
        """How many events wait here, in files of this process."""
        return sum(segment.rows for segment in self._all())

    def is_full(self) -> bool:
        """It takes no more until it is drained."""
        return self._size() >= self._max_bytes

    def adopt(self) -> int:
        """Take over the files of processes that are gone; how many events they hold."""
        if not self._directory.is_dir():
            return 0
        try:
            with self._alone():
                paths = sorted(self._directory.glob(f"*{SUFFIX}"))
                return sum(self._adopt(path) for path in paths if path not in self._refused)
        except OSError as error:
            log.error("spool_not_adopted", reason=str(error))
            return 0

    def next_finished(self, skipped: Collection[Segment] = ()) -> Segment | None:
        """The oldest file that nothing is appended to any more; None when nothing waits."""
        with self._lock:
            if all(segment in skipped for segment in self._finished):
                self._finish()
            waiting = (segment for segment in self._finished if segment not in skipped)
            return next(waiting, None)

    def discard(self, segment: Segment) -> None:
        """Delete a file whose events are all in the store; one that is damaged is put aside.

        Raises OSError.
        """
        with self._lock:
            self._finished = tuple(each for each in self._finished if each is not segment)
            self._index = {k: v for k, v in self._index.items() if v.segment is not segment}
            self._remove(segment)

    def close(self) -> None:
        """Leave the files to whoever adopts them; an empty one is deleted."""
        with self._lock:
            self._finish()
            for segment in self._finished:
                segment.close()
            self._finished = ()
            self._index = {}

    def _writable(self) -> Segment:
        if self.is_full():
            raise OSError(f"it holds the {self._max_bytes} bytes it may")
        if self._active is None:
            self._active = self._created()
        return self._active

    def _append(self, segment: Segment, rows: Sequence[Row]) -> None:
        try:
            offsets = segment.append(rows)
        except OSError:
            self._finish()
            raise
        for row, offset in zip(rows, offsets, strict=True):
            self._index.setdefault(str(row[KEY]), _Place(segment, offset))
        if segment.size >= SEGMENT_BYTES:
            self._finish()

    def _created(self) -> Segment:
        make_directory(self._directory)
        with self._alone():
            return Segment.create(self._directory / f"{uuid7()}{SUFFIX}", INSERTED_COLUMNS)

    def _adopt(self, path: Path) -> int:
        try:
            segment = Segment.adopt(path, known=INSERTED_COLUMNS)
        except (OSError, DamagedRowError) as error:
            self._refused.add(path)
            log.error("spool_not_adopted", file=path.name, reason=str(error))
            return 0
        if segment is None:
            return 0
        if not segment.rows:
            self._remove(segment)
            return 0
        in_order = _in_order(segment)
        with self._lock:
            for offset, row in segment.contents():
                self._index.setdefault(str(in_order(row)[KEY]), _Place(segment, offset))
            self._finished += (segment,)
        log.info("spool_adopted", file=segment.path.name, events=segment.rows)
        return segment.rows

    def _finish(self) -> None:
        segment, self._active = self._active, None
        if segment is None:
            return
        if segment.rows:
            self._finished += (segment,)
        else:
            segment.remove()

    def _remove(self, segment: Segment) -> None:
        if segment.is_damaged:
            log.error("spool_damaged", file=segment.path.name, whole=segment.rows)
            self._on_damaged()
        segment.remove()

    def _all(self) -> list[Segment]:
        active = self._active
        return [*self._finished] if active is None else [*self._finished, active]

    def _size(self) -> int:
        return sum(segment.size for segment in self._all())

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Between making a file and locking it nobody may take it for an orphan."""
        with (self._directory / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _can_be_encoded(row: Row) -> bool:
    try:
        encode_row(row)
    except UnicodeEncodeError:
        return False
    return True


def rows_of(segment: Segment) -> Iterator[Row]:
    """Its rows in the order of INSERTED_COLUMNS."""
    return (_in_order(segment)(row) for _, row in segment.contents())


def _in_order(segment: Segment) -> Callable[[Row], Row]:
    """Its rows as rows to insert: what an earlier release did not spool is null."""
    columns = segment.columns
    if columns == INSERTED_COLUMNS:
        return lambda row: row
    places = [columns.index(name) if name in columns else None for name in INSERTED_COLUMNS]
    return lambda row: tuple([None if place is None else row[place] for place in places])
