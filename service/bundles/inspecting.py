"""The evidence database itself, checked as its bundles are, and for what no bundle tells."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path

import orjson
from sqlalchemy import Row, select, tuple_, type_coerce
from sqlalchemy.types import NullType

from service.bundles.entries import PAGE, SOURCES, events_by_id
from service.bundles.filing import doomed_in_use, misfiled, strangers, unfiled_subjects
from service.bundles.kept import Kept, KeptCheck
from service.bundles.nodes import NodeCheck
from service.bundles.placing import Unplaced, is_late, stray_problems, unplaced
from service.bundles.register import Register
from service.bundles.subjects import is_misfiled, unlike_their_requests
from service.evidence import EvidenceStore, ProvenEvent, UnreadablePayloadError
from service.evidence.rails import rail_problems
from service.evidence.tables import log_entries
from service.ledger import EVIDENCE, LOGS, Ledger, LogMismatchError, hashes_text, proven_line
from service.ledger.rows import HASH_BYTES
from service.ledger.tree import leaf_hash
from service.verify import (
    HIDING,
    MALFORMED,
    Json,
    Key,
    Verification,
    said,
)

_NAMED = 5
_PATIENCE_SECONDS = 3.0
_PAUSE_SECONDS = 0.1
_BROKEN = (*MALFORMED, MemoryError, UnreadablePayloadError)
"""What one bad cell can raise; it must not keep others from being checked."""

_OPENED = ("payload", "record_key")
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

    def pass_over(self, seq: int, problem: str) -> None:
        """Report an entry that cannot be checked; it is not missing."""
        self.report(seq, problem)
        if seq < self.checkpoint.size:
            self._take_place(seq)

    def excuse(self, header: Json) -> None:
        """What this fact hides has gone since the checkpoint: it has a place, and no signature."""
        self.hiding.take_fact(sys.maxsize, header)


@dataclass(slots=True)
class Inspector:
    """Checks the logs of one evidence database. directory: where checkpoints are also filed.

    former: verifier keys, of any of the logs, that were in use before.

    Reads everything once, in pages; a running service is not disturbed. Cost: 0.1 ms an event.
    """

    store: EvidenceStore
    ledger: Ledger
    directory: Path
    vkey: str | None = None
    former: Sequence[str] = ()
    now: float = field(default_factory=time.time)

    def inspect(self, witness: str | None = None) -> Json:
        """The verdict on triggers and logs; the witness is compared with the log it names.

        Raises StoreUnavailableError.
        """
        with self.store.reading() as connection:
            problems = rail_problems(connection)
        problems += stray_problems(self.store)
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

    def former_keys(self, log: str) -> list[Key]:
        """The former keys, under the name that each has for that log. Raises ValueError."""
        return [_of_log(Key.parse(vkey), log) for vkey in self.former]

    def _log(self, log: str, witness: str | None) -> Json:
        try:
            kept = Kept.read(self.store, self.directory, log)  # first: the log only grows
            signed = self.ledger.checkpoint(log)
            if signed is None:  # the same as one of an empty log
                signed = self.ledger.signer.sign(log, 0, sha256().digest())
            head = {"vkey": self.ledger.vkey(log), "checkpoint": signed.note}
            ranges = [(0, signed.size - 1)] if signed.size else []
            whole = _Whole(head, ranges, witness, self.vkey)
            return self._checked(whole, kept)
        except LogMismatchError as error:
            problem = str(error)
        except MALFORMED as error:
            problem = said(error)
        return {"verdict": "failed", "findings": [{"seq": None, "problem": problem}]}

    def _checked(self, whole: _Whole, kept: Kept) -> Json:
        verdict = _LogCheck(self, kept.log, whole).run(kept)
        source = "of the secret file" if self.vkey is None else "as given"
        return {**verdict, "key": f"{whole.key.fingerprint}, {source}"}


class _LogCheck:
    """One log under inspection."""

    def __init__(self, inspector: Inspector, log: str, whole: _Whole) -> None:
        self._store = inspector.store
        keys = {key.name: key for key in (whole.key, *inspector.former_keys(log))}
        self._kept = KeptCheck(inspector.ledger, whole.checkpoint, keys, whole.report)
        self._now = inspector.now
        self._log = log
        self._whole = whole
        self._nodes = NodeCheck(inspector.store, log)
        self._register = Register(inspector.store, whole.report)
        self._unsigned: list[str] = []
        self._closed: dict[int, str] = {}
        self._patience = _PATIENCE_SECONDS
        self._has_looked_again = False

    def run(self, kept: Kept) -> Json:
        """The verdict; kept: checkpoints from before this inspection's own."""
        for rows in self._pages():
            present = [row for row in rows if self._is_present(row)]
            for row, event in zip(present, self._events(present), strict=True):
                self._check_row(row, event)
            self._check_subjects(present)
        self._check_nodes()
        compared = self._kept.run(kept)
        if self._log == EVIDENCE.name:
            self._register.finish()
            for seq, problem in chain(strangers(self._store), doomed_in_use(self._store)):
                self._whole.report(seq, problem)
        waiting = self._check_waiting()
        return {**self._whole.finish(), "waiting": waiting, **compared}

    def _is_present(self, row: LoggedRow) -> bool:
        if type(row.seq) is not int or row.seq < 0:
            self._whole.report(None, f"an entry stands at {row.seq!r}, which is no place")
            return False
        is_signed = row.seq < self._whole.checkpoint.size
        if not is_signed:
            self._unsigned.append(row.logged_id)
        if row.header is None and not is_signed:
            self._whole.report(row.seq, "forged: neither signed, nor of any event")
        elif type(row.leaf) is not bytes or len(row.leaf) != HASH_BYTES:
            self._closed[row.seq] = "changed: its leaf is no hash"
        elif is_signed:
            self._nodes.take(row.seq, row.leaf)
        return row.header is not None

    def _pages(self) -> Iterator[Sequence[LoggedRow]]:
        """By the last place there was, however far apart places are; cells as they are stored."""
        source, entries = SOURCES[self._log], log_entries.c
        own = [column for column in source.c if column.name not in {*_OPENED, "header"}]
        logged = (entries.seq, entries.event_id.label("logged_id"))
        raw = [
            type_coerce(cell, NullType()).label(cell.name)
            for cell in (entries.leaf, source.c.header)
        ]
        joined = log_entries.outerjoin(source, source.c.event_id == entries.event_id)
        query = select(*logged, *raw, *own).select_from(joined).where(entries.log == self._log)
        query = query.order_by(entries.seq, entries.event_id).limit(PAGE)
        page = query
        while True:
            with self._store.reading() as connection:
                rows = connection.execute(page).all()
            if rows:
                yield rows
                last = tuple_(rows[-1].seq, rows[-1].logged_id)
                page = query.where(tuple_(entries.seq, entries.event_id) > last)
            # A short page is the end, though a busy service may have gone on since.
            if len(rows) < PAGE and not self._awaits_reason():
                return

    def _awaits_reason(self) -> bool:
        """A record was erased while it was read: what says why is about to get its place, or has
        got it since the last page.
        """
        if self._log != EVIDENCE.name or not self._whole.hiding.unexplained():
            return False
        waiting = unplaced(self._store, self._log, HIDING)
        if self._patience <= 0 or not any(self._is_fresh(each) for each in waiting):
            is_first, self._has_looked_again = not self._has_looked_again, True
            return is_first
        self._patience -= _PAUSE_SECONDS
        time.sleep(_PAUSE_SECONDS)
        return True

    def _is_fresh(self, event: Unplaced) -> bool:
        return not event.is_passed and not is_late(event.event_id, self._now)

    def _events(self, rows: Sequence[LoggedRow]) -> list[ProvenEvent | None]:
        """What opens the rows' payloads; None for one that cannot be opened."""
        ids = [row.event_id for row in rows]
        try:
            found = list(events_by_id(self._store, self._log, ids))
        except _BROKEN:
            found = [event for row in rows for event in self._readable(row)]
        known = {event.event_id: event for event in found}
        return [known.get(row.event_id) for row in rows]

    def _readable(self, row: LoggedRow) -> Sequence[ProvenEvent]:
        try:
            return events_by_id(self._store, self._log, [row.event_id])
        except _BROKEN as error:
            self._closed[row.seq] = _told(error)
            return []

    def _check_row(self, row: LoggedRow, event: ProvenEvent | None) -> None:
        try:
            header = orjson.loads(row.header)
            if self._log == EVIDENCE.name and leaf_hash(row.header) == row.leaf:
                self._take_fact(row.seq, header)
            if row.seq in self._closed:
                self._whole.pass_over(row.seq, self._closed.pop(row.seq))
            elif row.seq < self._whole.checkpoint.size:
                self._take(
                    row, header, event or ProvenEvent(row.event_id, "", "", row.header, None)
                )
        except orjson.JSONDecodeError:
            self._whole.pass_over(row.seq, "changed: the header is no JSON text")
        except _BROKEN as error:
            self._whole.pass_over(row.seq, f"changed: {_told(error)}")

    def _take_fact(self, seq: int, header: Json) -> None:
        self._register.take(seq, header)
        if seq >= self._whole.checkpoint.size:
            self._whole.excuse(header)

    def _take(self, row: LoggedRow, header: Json, event: ProvenEvent) -> None:
        entry = proven_line(row.seq, event, ())
        wrong = misfiled(self._log, row, header)
        if wrong:
            self._whole.report(row.seq, f"its header says another {', '.join(wrong)}")
        if self._log == EVIDENCE.name and is_misfiled(event, row.subjects):
            self._whole.report(
                row.seq, "its payload is about other subjects than it is filed under"
            )
        self._whole.take({**entry, "proof": hashes_text([row.leaf])})

    def _check_subjects(self, rows: Sequence[LoggedRow]) -> None:
        if self._log != EVIDENCE.name:
            return
        about = [(row, self._subjects(row)) for row in rows if row.subjects is not None]
        with self._store.reading() as connection:
            for seq in unfiled_subjects(connection, about):
                self._whole.report(seq, "it cannot be found by one of its subjects")
            for seq in unlike_their_requests(connection, rows):
                self._whole.report(seq, "it is filed under other subjects than its request")

    def _subjects(self, row: LoggedRow) -> list[str]:
        try:
            return [str(name) for name in orjson.loads(row.subjects) if name is not None]
        except MALFORMED:
            self._whole.report(row.seq, "changed: its subjects are no JSON list")
            return []

    def _check_nodes(self) -> None:
        """What nodes say of many entries is of use where none of them has been found wrong."""
        for wrong in self._nodes.wrong:
            if not any(seq in wrong for seq, _ in self._whole.findings if seq is not None):
                about = f"entries {wrong[0]} to {wrong[-1]}"
                self._whole.report(wrong[0], f"the stored node over {about} is not theirs")

    def _check_waiting(self) -> int:
        """How many events have no place, or none that is signed; those that should are found."""
        waiting = unplaced(self._store, self._log)
        passed = [each.event_id for each in waiting if each.is_passed]
        late = [each for each in waiting if not self._is_fresh(each)]
        ahead = [each.event_id for each in late if not each.is_passed]
        unsigned = [each for each in self._unsigned if is_late(each, self._now)]
        for ids, problem in (
            (passed, "has no place in the log, which has come further: forged, or put back"),
            (ahead, "has no place in the log: does the sequencer run?"),
            (unsigned, "is under no signed checkpoint: does the sequencer run?"),
        ):
            for event_id in ids[:_NAMED]:
                self._whole.report(None, f"event {event_id} {problem}")
        return len(waiting) + len(self._unsigned)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, UnreadablePayloadError) else said(error)


def _of_log(key: Key, log: str) -> Key:
    """The logs of a service have one key, each under a name of its own."""
    name = f"{key.name.rpartition('/')[0]}/{log}"
    identity = sha256(f"{name}\n\x01".encode() + key.public).digest()[:4]
    return Key(name, identity, key.public)
