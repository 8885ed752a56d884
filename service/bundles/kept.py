"""Checkpoints kept beside a log, in its database and in a file: each a beginning of its history."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import select

from service.evidence import EvidenceStore
from service.evidence.tables import checkpoints
from service.ledger import Ledger, LogMismatchError
from service.ledger.checkpoints import CheckpointFile
from service.verify import MALFORMED, Checkpoint, Json, Key, ProblemError, is_extended, said

Report = Callable[[int | None, str], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of one log. file: the note in the file; rows: size and note, as stored."""

    log: str
    file: str | None
    rows: Sequence[tuple[object, object]]

    @classmethod
    def read(cls, store: EvidenceStore, directory: Path, log: str) -> Self:
        """What there is now. Read it before the checkpoint it is compared with: a service goes on
        signing meanwhile, and only what was kept earlier must be a beginning of that one.

        Raises StoreUnavailableError, and LogMismatchError for a file that cannot be read.
        """
        file = CheckpointFile(directory, log).read()
        stored = select(checkpoints.c.size, checkpoints.c.note).where(checkpoints.c.log == log)
        with store.reading() as connection:
            rows = connection.execute(stored.order_by(checkpoints.c.size)).all()
        return cls(log, None if file is None else file.note, [(row.size, row.note) for row in rows])


@dataclass(frozen=True, slots=True)
class KeptCheck:
    """Compares with `new`, the checkpoint under which the whole log was read.

    keys: those of the log, by the names that notes have them under.
    """

    ledger: Ledger
    new: Checkpoint
    keys: Mapping[str, Key]
    report: Report

    def run(self, kept: Kept) -> Json:
        """Every checkpoint must be a beginning of this history; which were compared."""
        compared = sum(
            self._check(kept.log, note, f"the stored checkpoint of size {size!r}", size)
            for size, note in kept.rows
        )
        file = "no checkpoint file compared"
        if kept.file is not None:
            name = f"the file checkpoint.{kept.log}"
            file = "compared" if self._check(kept.log, kept.file, name) else file
        return {
            "checkpoint_file": file,
            "stored_checkpoints": f"{compared} of {len(kept.rows)} compared",
        }

    def _check(self, log: str, note: object, name: str, size: object = None) -> bool:
        """Whether it could be compared: it is a note signed by a key of this log.

        size: the one it is stored under, if it is.
        """
        try:
            old = self._opened(note)
            if size not in {None, old.size}:
                self.report(None, f"{name} is one of size {old.size}")
            if old.size > self.new.size:
                problem = f"rolled back or truncated: {name} has {old.size} entries"
                self.report(self.new.size, problem)
            elif not self._is_extended(log, old):
                self.report(None, f"forked: {name} is not of this history")
        except MALFORMED as error:
            self.report(None, f"{name}: {said(error)}")
            return False
        except LogMismatchError as error:
            self.report(None, str(error))
            return False
        return True

    def _opened(self, note: object) -> Checkpoint:
        if type(note) is not str:
            raise ProblemError("it is no text")
        key = self.keys.get(note.partition("\n")[0])
        if key is None:
            raise ProblemError("of another log, or of a former key that was not given")
        return key.checkpoint(note)

    def _is_extended(self, log: str, old: Checkpoint) -> bool:
        proof = self.ledger.consistency(log, old.size, self.new.size)
        return is_extended(old, self.new, proof)
