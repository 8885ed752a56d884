"""Bundles: a part of a log, or all of it, in one file that proves itself."""

import contextlib
import gzip
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

import orjson
from sqlalchemy import func, select

from service.bundles.entries import (
    SOURCES,
    Ranges,
    entries,
    pages,
    proven_at,
)
from service.bundles.missing import is_lost_meanwhile
from service.bundles.selecting import Selection, count_selected, ranges_of, selected_seqs
from service.durability import sync
from service.errors import CheckFailedError, InvalidInputError, UnavailableError, UnknownError
from service.evidence import EvidenceStore
from service.ledger import EVIDENCE, Checkpoint, Ledger, hashes_text
from service.verify import BUNDLE, Key, ProblemError, is_extended
from service.verify import Checkpoint as Signed

_ATTEMPTS = 5
_AGAIN_SECONDS = 0.1
Progress = Callable[[int, int], None]
"""Called with how many entries are written, and of how many."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What a bundle holds; left_out: selected, but not covered by a checkpoint yet."""

    path: Path
    checkpoint: Checkpoint
    count: int
    left_out: int


class _ErasedMeanwhileError(Exception):
    """A payload has gone, and what says why is not covered by the bundle's checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """Writes bundles of the logs of one evidence database.

    wait_seconds: how long to wait for what was stored before the call to get its place.
    """

    store: EvidenceStore
    ledger: Ledger
    progress: Progress = lambda _written, _of: None
    wait_seconds: float = 5.0

    def export(
        self,
        path: Path,
        selection: Selection,
        *,
        log: str = EVIDENCE.name,
        witness: str | None = None,
        force: bool = False,
    ) -> Exported:
        """Write the bundle whole or not at all, readable by its owner only. Cost: 60 us an entry.

        witness: a checkpoint somebody keeps, for a proof that the log has grown from it.
        Raises UnknownError when nothing matches, InvalidInputError for a file that cannot be
        written or is there (unless force), CheckFailedError if the log does not begin with the
        witness, UnavailableError before the first checkpoint or while so much is erased that what
        says so is never covered yet, LogMismatchError for a damaged log.
        """
        if path.exists() and not force:
            raise InvalidInputError(f"{path} is there already; --force replaces it")
        for _ in range(_ATTEMPTS):
            checkpoint = self._checkpoint(log)
            exported, ranges = self._planned(path, selection, log, checkpoint)
            head = self._manifest(checkpoint, selection, ranges, log=log, witness=witness)
            with contextlib.suppress(_ErasedMeanwhileError), replaced(path) as file:
                signed = _Signed(file, self.ledger, log)
                signed.write({**head, "count": exported.count})
                self._write_entries(signed, ranges, log, checkpoint.size)
                signed.finish(exported.count)
                return exported
        raise UnavailableError(
            "records were erased or purged while they were exported, each time anew: export again "
            "once that is over"
        )

    def _checkpoint(self, log: str) -> Checkpoint:
        """The last one, once it covers what is stored now or the time to wait is over."""
        deadline = time.monotonic() + self.wait_seconds
        with self.store.reading() as connection:
            counted = select(func.count()).select_from(SOURCES[log])
            stored = connection.execute(counted).scalar_one()
        while True:
            checkpoint = self.ledger.checkpoint(log)
            if checkpoint is not None and checkpoint.size >= stored:
                return checkpoint
            if time.monotonic() > deadline or not stored:
                break
            time.sleep(_AGAIN_SECONDS)
        if checkpoint is None and not stored:
            raise UnknownError(f"the log {log} is empty")
        if checkpoint is None:
            raise UnavailableError(f"the log {log} has no checkpoint yet: is the service running?")
        return checkpoint

    def _planned(
        self, path: Path, selection: Selection, log: str, checkpoint: Checkpoint
    ) -> tuple[Exported, Ranges]:
        size = checkpoint.size
        if selection.is_everything:
            ranges = [(0, size - 1)] if size else []
        else:
            ranges = ranges_of(selected_seqs(self.store, log, size, selection))
        count = sum(last - first + 1 for first, last in ranges)
        left_out = max(0, count_selected(self.store, log, selection) - count)
        if not count:
            waiting = f" ({left_out} are not in the log yet)" if left_out else ""
            raise UnknownError(f"nothing in the log {log} matches{waiting}")
        return Exported(path, checkpoint, count, left_out), ranges

    def _manifest(
        self,
        checkpoint: Checkpoint,
        selection: Selection,
        ranges: Ranges,
        *,
        log: str,
        witness: str | None,
    ) -> dict[str, object]:
        head: dict[str, object] = {
            "format": BUNDLE,
            "vkey": self.ledger.vkey(log),
            "checkpoint": checkpoint.note,
            "selection": selection.document(),
            "seqs": ranges,
        }
        if witness is not None:
            head["consistency"] = self._consistency(log, checkpoint, witness)
        return head

    def _consistency(self, log: str, checkpoint: Checkpoint, witness: str) -> dict[str, object]:
        try:
            old = Key.parse(self.ledger.vkey(log)).checkpoint(witness)
        except (ProblemError, ValueError) as error:
            raise CheckFailedError(f"the witness: {error}") from None
        if old.size > checkpoint.size:
            raise CheckFailedError(
                f"rolled back: the witness has {old.size} entries, the log {checkpoint.size}"
            )
        proof = self.ledger.consistency(log, old.size, checkpoint.size)
        if not is_extended(old, Signed(checkpoint.size, checkpoint.root), proof):
            raise CheckFailedError("the log does not begin with the witness's entries")
        return {"from": old.size, "proof": hashes_text(proof)}

    def _write_entries(self, file: "_Signed", ranges: Ranges, log: str, size: int) -> None:
        written, count = 0, sum(last - first + 1 for first, last in ranges)
        for page in pages(ranges):
            found = list(zip(page, proven_at(self.store, log, page), strict=True))
            if log == EVIDENCE.name and is_lost_meanwhile(self.store, found, size=size):
                raise _ErasedMeanwhileError
            for line in entries(self.ledger, log, size, found):
                file.write(line)
            written += len(page)
            self.progress(written, count)


class _Signed:
    """Lines of JSON, and the signed trailer over them."""

    def __init__(self, file: BinaryIO, ledger: Ledger, log: str) -> None:
        self._file = file
        self._signer = ledger.signer
        self._log = log
        self._digest = sha256()

    def write(self, document: object) -> None:
        """One line."""
        line = orjson.dumps(document, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
        self._digest.update(line)
        self._file.write(line)

    def finish(self, count: int) -> None:
        """The last line."""
        text = f"{BUNDLE} trailer\ncount {count}\nsha256 {self._digest.hexdigest()}\n"
        self.write({"trailer": self._signer.sign_text(self._log, text)})


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the path's place, durably, if nothing is raised; else there is none.

    Compressed if the name ends in .gz. Raises InvalidInputError where it cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}") from error
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with _packed(file, path) as lines:
                yield lines
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync(path.parent)
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _packed(file: BinaryIO, path: Path) -> contextlib.AbstractContextManager[BinaryIO]:
    if path.suffix != ".gz":
        return contextlib.nullcontext(file)
    packed = gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6)
    return contextlib.closing(cast("BinaryIO", packed))
