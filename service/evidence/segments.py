"""One file of the spool: rows with length and checksum, appended by the process that holds it."""

import contextlib
import fcntl
import os
import re
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Self

from service.durability import sync
from service.evidence.events import Row
from service.logs import log

SUFFIX = ".segment"
DAMAGED = ".damaged"
_MAGIC = b"explaind spool 1\n"
_FRAME = struct.Struct("<II")  # bytes of the body, CRC-32 of the body
_FIELD = struct.Struct("<cI")  # kind, bytes of the value
_KIND = re.compile(rb"[nsbi]")


class DamagedRowError(ValueError):
    """The bytes of a row are not what was written."""


def encode_row(row: Row) -> bytes:
    """The values of a row, each with its kind and length. Cost: about 5 us."""
    pieces: list[bytes] = []
    for value in row:
        kind, body = _encoded(value)
        pieces += (_FIELD.pack(kind, len(body)), body)
    return b"".join(pieces)


def _encoded(value: str | int | bytes | None) -> tuple[bytes, bytes]:
    if value is None:
        return b"n", b""
    if isinstance(value, str):
        return b"s", value.encode()
    if isinstance(value, bytes):
        return b"b", value
    return b"i", b"%d" % value


def decode_row(body: bytes) -> Row:
    """The row that was encoded so. Raises DamagedRowError."""
    values: list[str | int | bytes | None] = []
    start = 0
    while start < len(body):
        try:
            kind, size = _FIELD.unpack_from(body, start)
        except struct.error:
            raise DamagedRowError("a value is cut off") from None
        start += _FIELD.size + size
        values.append(_decoded(kind, body[start - size : start], size))
    return tuple(values)


def _decoded(kind: bytes, body: bytes, size: int) -> str | int | bytes | None:
    if len(body) != size or kind not in b"nsbi":
        raise DamagedRowError("a value is cut off or of no known kind")
    if kind == b"n":
        return None
    if kind == b"s":
        return body.decode()
    return body if kind == b"b" else int(body)


def _is_row(body: bytes, values: int) -> bool:
    """The lengths in it add up to so many values. Cost: 1 us where it is something else."""
    start = 0
    while start + _FIELD.size <= len(body) and values:
        start += _FIELD.size + _FIELD.unpack_from(body, start)[1]
        values -= 1
    return start == len(body) and not values


def _framed(body: bytes) -> bytes:
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


class Segment:
    """An open file of rows; who holds its lock owns it, and the lock ends with the process.

    columns: the names of the values in its rows. size: the bytes up to the end of the last whole
    row. is_damaged: among or behind them are bytes that may have been a row somebody was told is
    kept; such a file is never deleted.
    """

    def __init__(self, path: Path, descriptor: int, columns: tuple[str, ...], size: int) -> None:
        self.path = path
        self.columns = columns
        self.size = size
        self._start = size
        self._descriptor = descriptor
        self.rows = 0
        self.is_damaged = False

    @classmethod
    def create(cls, path: Path, columns: tuple[str, ...]) -> Self:
        """A new file, there after a power cut too. Raises OSError, and then leaves none."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            head = _MAGIC + _framed(encode_row(columns))
            _write(descriptor, head, 0)
            os.fsync(descriptor)
            sync(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return cls(path, descriptor, columns, len(head))

    @classmethod
    def adopt(cls, path: Path, *, known: Collection[str]) -> Self | None:
        """The file of a process that is gone, None while somebody has it, or where it is no more.

        A tail that was being written when its process ended is left out. known: the columns rows
        may have. Raises OSError, DamagedRowError for what this release did not write.
        """
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_removed = os.fstat(descriptor).st_nlink == 0
            segment = None if is_removed else cls._opened(path, descriptor, known)
        except BlockingIOError:
            segment = None
        except BaseException:
            os.close(descriptor)
            raise
        if segment is None:
            os.close(descriptor)
        return segment

    @classmethod
    def _opened(cls, path: Path, descriptor: int, known: Collection[str]) -> Self:
        length = os.fstat(descriptor).st_size
        start = len(_MAGIC)
        head = _body_at(descriptor, start, length)
        if head is None or os.pread(descriptor, start, 0) != _MAGIC:
            if length > start + len(_framed(encode_row(tuple(known)))):
                raise DamagedRowError("its first bytes are not those of a spool of this release")
            return cls(path, descriptor, (), length)  # ended while it was made: holds no row
        columns = tuple(map(str, decode_row(head)))
        if not set(columns) <= set(known):
            raise DamagedRowError("it has columns that only a later release knows")
        segment = cls(path, descriptor, columns, start + _FRAME.size + len(head))
        for offset, body in segment._bodies(segment.size, length):
            segment.size = offset + _FRAME.size + len(body)
            segment.rows += 1
        if segment.size < length:
            segment._judge_tail(length)
        return segment

    def _judge_tail(self, length: int) -> None:
        """No whole row is there: what is cut off or zeros was being written, and is dropped."""
        tail = os.pread(self._descriptor, length - self.size, self.size)
        claimed = _FRAME.unpack_from(tail)[0] if len(tail) >= _FRAME.size else len(tail)
        if _FRAME.size + claimed > len(tail) or not any(tail):
            log.warning("spool_tail_dropped", file=self.path.name, bytes=len(tail))
        else:
            self.is_damaged = True

    def append(self, rows: Sequence[Row]) -> list[int]:
        """Write rows and sync them; where each stands. Raises OSError, and then holds none of them
        and takes no more: what a failed sync left of the file is not known.
        """
        offsets, pieces, end = [], [], self.size
        for row in rows:
            frame = _framed(encode_row(row))
            offsets.append(end)
            pieces.append(frame)
            end += len(frame)
        try:
            _write(self._descriptor, b"".join(pieces), self.size)
            os.fdatasync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size = end
        self.rows += len(rows)
        return offsets

    def contents(self) -> Iterator[tuple[int, Row]]:
        """The rows in the order in which they were appended, each with where it stands; what has
        been damaged is passed over, and `is_damaged` says so.
        """
        if self.columns:
            end = self._start
            for offset, body in self._bodies(self._start, self.size):
                end = offset + _FRAME.size + len(body)
                yield offset, decode_row(body)
            self.is_damaged |= end != self.size

    def row_at(self, offset: int) -> Row | None:
        """The row that stands there; None once the file is closed."""
        try:
            body = _body_at(self._descriptor, offset, self.size)
        except OSError:
            return None
        return None if body is None else decode_row(body)

    def remove(self) -> None:
        """Delete the file, or put it aside if it is damaged: it cannot be adopted any more."""
        if self.is_damaged:
            self.path.rename(self.path.with_suffix(DAMAGED))
        else:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give the file up to whoever adopts it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _bodies(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        while start < stop:
            body = _body_at(self._descriptor, start, stop)
            if body is None:
                found = self._next_whole(start + 1, stop)
                if found is None:
                    return
                self.is_damaged = True
                start = found
            else:
                yield start, body
                start += _FRAME.size + len(body)

    def _next_whole(self, start: int, stop: int) -> int | None:
        """Where the next whole row begins: a length, a checksum and values that agree.

        Reads the rest of the file: 16 MiB, and a quarter of a second, at most for each gap.
        """
        rest = os.pread(self._descriptor, stop - start, start)
        for kind in _KIND.finditer(rest, _FRAME.size):
            offset = kind.start() - _FRAME.size
            size, checksum = _FRAME.unpack_from(rest, offset)
            if not 0 < size <= len(rest) - kind.start():
                continue
            body = rest[kind.start() : kind.start() + size]
            if _is_row(body, len(self.columns)) and zlib.crc32(body) == checksum:
                return start + offset
        return None


def _body_at(descriptor: int, start: int, stop: int) -> bytes | None:
    """The body of the frame there, None where none is whole."""
    head = os.pread(descriptor, _FRAME.size, start)
    if len(head) < _FRAME.size:
        return None
    size, checksum = _FRAME.unpack(head)
    if size == 0 or start + _FRAME.size + size > stop:  # zeros are what a power cut leaves
        return None
    body = os.pread(descriptor, size, start + _FRAME.size)
    return body if len(body) == size and zlib.crc32(body) == checksum else None


def _write(descriptor: int, content: bytes, offset: int) -> None:
    """All of it: a full disk first takes a part, and only then says so."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
