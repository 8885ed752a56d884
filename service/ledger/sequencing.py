"""The sequencer: gives committed rows their places in a log, and signs how far it has come."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from service.evidence import EvidenceStore
from service.evidence.tables import log_entries, tree_nodes
from service.ledger.checkpoints import CheckpointFile, add_checkpoint, latest_checkpoint
from service.ledger.errors import LogMismatchError
from service.ledger.nodes import StoredNodes, TileCache
from service.ledger.notes import Checkpoint, LogSigner
from service.ledger.rows import Batch, Log, Mark, RepeatedError, add_mark, log_rows, set_mark
from service.ledger.tree import CompactRange, StoredNode, peaks_of, root_of
from service.logs import log as lines

BATCH_ROWS = 1000
SIGNING_PAUSE_US = 1_000_000


class _State(NamedTuple):
    """A log at some size."""

    size: int
    root: bytes
    told_by: str


class _OutrunError(Exception):
    """Another process has moved the mark meanwhile."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What one transaction does."""

    mark: Mark
    tree: CompactRange
    batch: Batch | None
    start: int
    nodes: Sequence[StoredNode]
    checkpoint: Checkpoint | None
    is_full: bool


class Sequencer:
    """One process's hand at one log; any number of processes may take turns. For one thread.

    What it once saw, and the file it wrote, must be a beginning of what it sees later: else it
    neither sequences nor signs.
    """

    def __init__(
        self, store: EvidenceStore, log: Log, signer: LogSigner, file: CheckpointFile | None = None
    ) -> None:
        self.log = log
        self._store = store
        self._rows = log_rows(store)
        self._signer = signer
        self._file = file
        self._tree: CompactRange | None = None
        self._seen: _State | None = None
        self._has_written = False
        self.signed: Checkpoint | None = None
        """The last checkpoint there is of this log, whoever signed it."""

    def run(self, *, is_last: bool = False) -> None:
        """Put everything that was committed before the call into the log.

        A checkpoint follows if the last one is a second old, or is_last.
        Raises LogMismatchError, StoreUnavailableError.
        """
        has_more = True
        while has_more:
            try:
                has_more = self._turn(is_last=is_last, skips_known=False)
            except RepeatedError:
                has_more = self._turn_without_known(is_last=is_last)
        if self._has_written:
            self._store.flush()
            self._has_written = False

    def waiting(self) -> int:
        """How many committed rows are not in the log. Raises StoreUnavailableError."""
        with self._store.reading() as connection:
            mark, is_in_order = self._rows.mark(connection, self.log)
            return self._rows.waiting(connection, self.log, mark if is_in_order else Mark())

    def _turn_without_known(self, *, is_last: bool) -> bool:
        try:
            return self._turn(is_last=is_last, skips_known=True)
        except RepeatedError:
            reason = f"the log {self.log.name} has entries at places that were not given yet"
            raise LogMismatchError(reason) from None

    def _turn(self, *, is_last: bool, skips_known: bool) -> bool:
        """One batch; whether more is left for this process."""
        try:
            with self._rows.turn(self.log) as connection:
                mark = None if connection is None else self._followed(connection)
                if connection is None or mark is None:
                    return connection is not None
                step = self._step(connection, mark, is_last=is_last, skips_known=skips_known)
                if step is None:
                    return False
                with self._rows.change(connection) as changing:
                    self._write(changing, mark, step)
        except _OutrunError:
            return False
        self._has_written = True
        self._tree = step.tree
        self._seen = _State(step.tree.size, step.tree.root(), "this process")
        self.signed = step.checkpoint or self.signed
        return step.is_full

    def _followed(self, connection: Connection) -> Mark | None:
        """The log's mark, with this process's memory of the log brought up to it; None when the
        order of rows was lost and has been made anew.
        """
        if self._tree is None:
            with self._rows.change(connection) as changing:
                add_mark(changing, self.log)
        mark, is_in_order = self._rows.mark(connection, self.log)
        if self._tree is None or self._tree.size != mark.size:
            self._tree = self._restored(connection, mark.size)
            self._seen = _State(mark.size, self._tree.root(), "this process")
        if self.signed is None or self.signed.size != mark.signed_size:
            self.signed = latest_checkpoint(connection, self.log.name)
        if is_in_order:
            return mark
        lines.error("log_source_changed", log=self.log.name, after=mark.event_id)
        with self._rows.change(connection) as changing:
            renumbered = self._rows.renumbered(changing, self.log, mark)
            if not set_mark(changing, self.log, mark, renumbered):
                raise _OutrunError
        return None

    def _restored(self, connection: Connection, size: int) -> CompactRange:
        """The tree as it is stored. LogMismatchError unless it has grown from what was known."""
        node_at = StoredNodes(self._rows, connection, self.log.name, size, TileCache())
        for known in self._known(connection) if self._seen is None else [self._seen]:
            if known.size > size:
                raise LogMismatchError(
                    f"the log {self.log.name} has {size} entries, and had {known.size} according "
                    f"to {known.told_by}"
                )
            if root_of(node_at, known.size) != known.root:
                raise LogMismatchError(
                    f"the first {known.size} entries of the log {self.log.name} are not those of "
                    f"{known.told_by}"
                )
        return CompactRange(size, peaks_of(node_at, size))

    def _known(self, connection: Connection) -> list[_State]:
        """What this log was, as signed before this process started."""
        filed = None if self._file is None else self._file.read()
        stored = latest_checkpoint(connection, self.log.name)
        ours = self._signer.origin(self.log.name)
        if stored is not None and stored.origin != ours:
            lines.warning("log_key_changed", log=self.log.name, before=stored.origin, now=ours)
        elif stored is not None and not self._signer.has_signed(self.log.name, stored.note):
            raise LogMismatchError(f"a stored checkpoint of the log {self.log.name} is forged")
        found = [(stored, "a stored checkpoint"), (filed, "the file of the last checkpoint")]
        return [_State(each.size, each.root, told_by) for each, told_by in found if each]

    def _step(
        self, connection: Connection, mark: Mark, *, is_last: bool, skips_known: bool
    ) -> _Step | None:
        """What is to be done; None for nothing."""
        assert self._tree is not None
        batch = self._rows.arrived(connection, self.log, mark, BATCH_ROWS)
        is_full = batch is not None and len(batch.event_ids) == BATCH_ROWS
        if batch is not None and skips_known:
            batch = batch.without(self._present(connection, batch))
        tree, now_us = self._tree.copy(), time.time_ns() // 1000
        nodes = tree.extend(batch.leaves) if batch else []
        is_pausing = 0 <= now_us - mark.signed_us < SIGNING_PAUSE_US
        checkpoint = None
        if tree.size > mark.signed_size and (is_last or not is_pausing):
            checkpoint = self._signer.sign(self.log.name, tree.size, tree.root())
            mark = replace(mark, signed_size=tree.size, signed_us=now_us)
        if batch is not None:
            mark = replace(mark, size=tree.size, arrival=batch.arrival, event_id=batch.event_id)
        if batch is None and checkpoint is None:
            return None
        return _Step(mark, tree, batch, self._tree.size, nodes, checkpoint, is_full)

    def _present(self, connection: Connection, batch: Batch) -> set[str]:
        entries = log_entries.c
        of_batch = entries.log == self.log.name, entries.event_id.in_(batch.event_ids)
        return set(connection.scalars(select(entries.event_id).where(*of_batch)))

    def _write(self, changing: Connection, mark: Mark, step: _Step) -> None:
        if not set_mark(changing, self.log, mark, step.mark):
            raise _OutrunError
        name = self.log.name
        if step.batch is not None and step.batch.leaves:
            self._rows.insert(changing, self.log, step.start, step.batch)
        if step.nodes:
            rows = [{"log": name, **node._asdict()} for node in step.nodes]
            changing.execute(insert(tree_nodes), rows)
        if step.checkpoint is not None:
            signed_us = step.mark.signed_us
            add_checkpoint(changing, name, step.checkpoint, signed_us=signed_us)
