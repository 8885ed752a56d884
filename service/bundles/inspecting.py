"""The evidence database itself, checked as its bundles are, and for what no bundle tells."""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import orjson
from sqlalchemy import ColumnElement, Row, exists, func, select

from service.bundles.entries import PAGE, SOURCES, events_by_id, is_hidden_later
from service.bundles.filing import misfiled, unfiled_subjects
from service.bundles.nodes import NodeCheck
from service.bundles.subjects import is_misfiled, unlike_their_requests
from service.evidence import EvidenceStore, ProvenEvent, UnreadablePayloadError
from service.evidence.rails import missing_rails
from service.evidence.tables import checkpoints, log_entries
from service.ledger import EVIDENCE, LOGS, Ledger, LogMismatchError, hashes_text, proven_line
from service.ledger.checkpoints import CheckpointFile
from service.verify import MALFORMED, Checkpoint, Json, Verification, is_extended, said

LATE_SECONDS = 10.0
"""While a service runs, whatever is older has a place in its log and a checkpoint over it."""

_NAMED = 5
LoggedRow = Row[tuple[object, ...]]


class _Whole(Verification):
    """All entries of a log, read where they are stored.

    Their places are not proven one by one: the proofs would be made of the same rows. The root over
    all headers says it of all of them, and each leaf's own row which of them was changed.
    """

    def check_proof(self, seq: int, leaf: bytes, proof: Sequence[str]) -> None:
        """proof: the leaf as it was stored when the entry got its place."""
        if hashes_text([leaf]) != list(proof):
            self.report(seq, "changed: the header is not the one its leaf was made of")

    def excuse(self, seq: int, event: ProvenEvent) -> None:
        """Its payload has gone since the checkpoint, for a reason that has no place yet."""
        header = orjson.loads(event.header)
        hiding = ("hiding", f"{header['tenant']}/{header['request_id']}", seq + 1)
        self._notes.execute("INSERT INTO notes VALUES (?, ?, ?)", hiding)


@dataclass(slots=True)
class Inspector:
    """Checks the logs of one evidence database. directory: where checkpoints are also filed.

    Reads everything once, in pages; a running service is not disturbed. Cost: 0.1 ms an event.
    """

    store: EvidenceStore
    ledger: Ledger
    directory: Path
    vkey: str | None = None
    now: float = field(default_factory=time.time)

    def inspect(self, witness: str | None = None) -> Json:
        """The verdict on triggers and logs; the witness is compared with the log it names.

        Raises StoreUnavailableError.
        """
        with self.store.reading() as connection:
            missing = sorted(missing_rails(connection))
        problems = [f"the trigger {name} was dropped" for name in missing]
        named = None if witness is None else witness.partition("\n")[0]
        if named is not None and named not in {self.ledger.origin(log) for log in LOGS}:
            problems.append("the witness is of another log, or signed by another key")
        logs = {
            log: self._log(log, witness if named == self.ledger.origin(log) else None)
            for log in LOGS
        }
        verdicts = ["failed"] * bool(problems) + [str(one["verdict"]) for one in logs.values()]
        return {
            "verdict": "failed" if "failed" in verdicts else verdicts[0],
            "findings": [{"seq": None, "problem": problem} for problem in problems],
            "logs": logs,
        }

    def _log(self, log: str, witness: str | None) -> Json:
        try:
            filed = CheckpointFile(self.directory, log).read()  # first: the log only grows
            signed = self.ledger.checkpoint(log)
            if signed is None:  # the same as one of an empty log
                signed = self.ledger.signer.sign(log, 0, sha256().digest())
            head = {"vkey": self.ledger.vkey(log), "checkpoint": signed.note}
            ranges = [(0, signed.size - 1)] if signed.size else []
            whole = _Whole(head, ranges, witness, self.vkey)
            return self._checked(log, whole, None if filed is None else filed.note)
        except LogMismatchError as error:
            problem = str(error)
        except MALFORMED as error:
            problem = said(error)
        return {"verdict": "failed", "findings": [{"seq": None, "problem": problem}]}

    def _checked(self, log: str, whole: _Whole, filed: str | None) -> Json:
        verdict = _LogCheck(self, log, whole).run(filed)
        source = "of the secret file" if self.vkey is None else "as given"
        return {**verdict, "key": f"{whole.key.fingerprint}, {source}"}


class _LogCheck:
    """One log under inspection."""

    def __init__(self, inspector: Inspector, log: str, whole: _Whole) -> None:
        self._store = inspector.store
        self._ledger = inspector.ledger
        self._now = inspector.now
        self._log = log
        self._whole = whole
        self._nodes = NodeCheck(inspector.store, log)
        self._unsigned: list[str] = []

    def run(self, filed: str | None) -> Json:
        """The verdict; filed: the checkpoint in the file beside the database."""
        for rows in self._pages():
            present = [row for row in rows if self._is_present(row)]
            for row, event in zip(present, self._events(present), strict=True):
                self._check_row(row, event)
            self._check_subjects(present)
        self._check_nodes()
        self._check_checkpoints(filed)
        waiting = self._check_waiting()
        return {**self._whole.finish(), "waiting": waiting}

    def _is_present(self, row: LoggedRow) -> bool:
        if row.seq < self._whole.checkpoint.size:
            self._nodes.take(row.seq, bytes(row.leaf))
        elif row.header is None:
            self._whole.report(row.seq, "forged: neither signed, nor of any event")
        return row.header is not None

    def _pages(self) -> Iterator[Sequence[LoggedRow]]:
        source, place = SOURCES[self._log], log_entries.c.seq
        own = [column for column in source.c if column.name not in {"payload", "record_key"}]
        logged = (place, log_entries.c.leaf, log_entries.c.event_id.label("logged_id"))
        joined = log_entries.outerjoin(source, source.c.event_id == log_entries.c.event_id)
        query = select(*logged, *own).select_from(joined).where(log_entries.c.log == self._log)
        with self._store.reading() as connection:
            last = select(func.max(place)).where(log_entries.c.log == self._log)
            end = connection.execute(last).scalar_one()
        for start in range(0, 0 if end is None else end + 1, PAGE):
            page = query.where(place >= start, place < start + PAGE).order_by(place)
            with self._store.reading() as connection:
                rows = connection.execute(page).all()
            yield rows

    def _events(self, rows: Sequence[LoggedRow]) -> list[ProvenEvent]:
        """What opens the rows' payloads; one that cannot be opened is reported, and is without."""
        ids = [row.event_id for row in rows]
        try:
            found = list(events_by_id(self._store, self._log, ids))
        except UnreadablePayloadError:
            found = [event for row in rows for event in self._readable(row)]
        known = {event.event_id: event for event in found}
        return [
            known.get(row.event_id) or ProvenEvent(row.event_id, "", "", row.header, None)
            for row in rows
        ]

    def _readable(self, row: LoggedRow) -> Sequence[ProvenEvent]:
        try:
            return events_by_id(self._store, self._log, [row.event_id])
        except UnreadablePayloadError as error:
            self._whole.report(row.seq, str(error))
            return []

    def _check_row(self, row: LoggedRow, event: ProvenEvent) -> None:
        if row.seq >= self._whole.checkpoint.size:
            self._unsigned.append(row.logged_id)
            return
        header = bytes(row.header)
        try:
            entry = proven_line(row.seq, event, ())
            wrong = misfiled(self._log, row, orjson.loads(header))
        except MALFORMED:
            self._whole.report(row.seq, "changed: the header is no JSON text")
            return
        if wrong:
            self._whole.report(row.seq, f"its header says another {', '.join(wrong)}")
        if self._log == EVIDENCE.name and is_misfiled(event, row.subjects):
            self._whole.report(
                row.seq, "its payload is about other subjects than it is filed under"
            )
        self._whole.take({**entry, "proof": hashes_text([bytes(row.leaf)])})
        is_hidden = self._log == EVIDENCE.name and event.opening is None
        size = self._whole.checkpoint.size
        if is_hidden and is_hidden_later(self._store, event, size=size):
            self._whole.excuse(row.seq, event)

    def _check_subjects(self, rows: Sequence[LoggedRow]) -> None:
        if self._log != EVIDENCE.name:
            return
        names = [(row, orjson.loads(row.subjects)) for row in rows if row.subjects is not None]
        about = [(row, [name for name in each if name is not None]) for row, each in names]
        with self._store.reading() as connection:
            for seq in unfiled_subjects(connection, about):
                self._whole.report(seq, "it cannot be found by one of its subjects")
            for seq in unlike_their_requests(connection, rows):
                self._whole.report(seq, "it is filed under other subjects than its request")

    def _check_nodes(self) -> None:
        """What nodes say of many entries is of use where none of them has been found wrong."""
        for wrong in self._nodes.wrong:
            if not any(seq in wrong for seq, _ in self._whole.findings if seq is not None):
                about = f"entries {wrong[0]} to {wrong[-1]}"
                self._whole.report(wrong[0], f"the stored node over {about} is not theirs")

    def _check_checkpoints(self, filed: str | None) -> None:
        """Every checkpoint there is must be a beginning of this history."""
        stored = select(checkpoints.c.size, checkpoints.c.note)
        with self._store.reading() as connection:
            of_log = stored.where(checkpoints.c.log == self._log)
            rows = connection.execute(of_log.order_by(checkpoints.c.size)).all()
        ours = f"{self._ledger.origin(self._log)}\n"
        for row in rows:
            if row.note.startswith(ours):  # else of a key that was in use before
                self._check_checkpoint(row.note, f"the stored checkpoint of size {row.size}")
        if filed is not None and filed.startswith(ours):
            self._check_checkpoint(filed, f"the file checkpoint.{self._log}")

    def _check_checkpoint(self, note: str, name: str) -> None:
        new = self._whole.checkpoint
        try:
            old = self._whole.key.checkpoint(note)
            if old.size > new.size:
                problem = f"rolled back or truncated: {name} has {old.size} entries"
                self._whole.report(new.size, problem)
            elif not self._is_extended(old, new):
                self._whole.report(None, f"forked: {name} is not of this history")
        except MALFORMED as error:
            self._whole.report(None, f"{name}: {said(error)}")
        except LogMismatchError as error:
            self._whole.report(None, str(error))

    def _is_extended(self, old: Checkpoint, new: Checkpoint) -> bool:
        return is_extended(old, new, self._ledger.consistency(self._log, old.size, new.size))

    def _check_waiting(self) -> int:
        """How many events have no place, or none that is signed; those too old for that are found.

        An event's ID says when it was made.
        """
        source = SOURCES[self._log]
        placed: ColumnElement[bool] = exists().where(
            log_entries.c.log == self._log, log_entries.c.event_id == source.c.event_id
        )
        with self._store.reading() as connection:
            waiting = connection.scalars(select(source.c.event_id).where(~placed)).all()
        for ids, problem in (
            (waiting, "has no place in the log"),
            (self._unsigned, "is under no signed checkpoint"),
        ):
            for event_id in [one for one in ids if self._is_late(one)][:_NAMED]:
                self._whole.report(None, f"event {event_id} {problem}: does the sequencer run?")
        return len(waiting) + len(self._unsigned)

    def _is_late(self, event_id: str) -> bool:
        try:
            made = (uuid.UUID(event_id).int >> 80) / 1000
        except ValueError:
            return True
        return self._now - made > LATE_SECONDS
