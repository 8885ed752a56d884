"""What a log proves: checkpoints, places of events, inclusion and consistency."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from service.evidence import EvidenceStore
from service.evidence.tables import log_entries
from service.ledger.checkpoints import latest_checkpoint, signing_time
from service.ledger.nodes import StoredNodes, TileCache
from service.ledger.notes import Checkpoint, LogSigner
from service.ledger.rows import EVIDENCE, log_rows
from service.ledger.tree import consistency_path, inclusion_path
from service.secrets import Keyring

Path = tuple[bytes, ...]
"""Hashes of a proof, in the order of RFC 6962."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of a log."""

    seq: int
    event_id: str
    leaf: bytes


class Ledger:
    """Reads the logs of one evidence database. Safe to call from several threads.

    log: a name in `LOGS`. Every call raises StoreUnavailableError when the store does not answer,
    and LogMismatchError when rows that must be there are missing.
    """

    def __init__(self, store: EvidenceStore, keyring: Keyring) -> None:
        self.signer = LogSigner(keyring)
        self._store = store
        self._rows = log_rows(store)
        self._cache = TileCache()

    def origin(self, log: str = EVIDENCE.name) -> str:
        """The log's name in the world, the first line of its checkpoints."""
        return self.signer.origin(log)

    def vkey(self, log: str = EVIDENCE.name) -> str:
        """The public key of the log's checkpoints, as C2SP writes it: name+hash+base64."""
        return self.signer.vkey(log)

    def checkpoint(self, log: str = EVIDENCE.name) -> Checkpoint | None:
        """The last one that was signed, None before the first."""
        with self._store.reading() as connection:
            return latest_checkpoint(connection, log)

    def signed_at(self, checkpoint: Checkpoint, log: str = EVIDENCE.name) -> datetime | None:
        """When a checkpoint that `checkpoint` gave was signed; None once a later one of its day
        has taken its place.
        """
        with self._store.reading() as connection:
            return signing_time(connection, log, checkpoint.size)

    def place(self, log: str, event_id: str) -> int | None:
        """The event's seq; None while it has none."""
        return self.places(log, [event_id]).get(event_id)

    def places(self, log: str, event_ids: Sequence[str]) -> dict[str, int]:
        """The seq of each of up to some thousands of events that has one."""
        entries = log_entries.c
        query = select(entries.event_id, entries.seq).where(
            entries.log == log, entries.event_id.in_(event_ids)
        )
        with self._store.reading() as connection:
            return {row.event_id: row.seq for row in connection.execute(query)}

    def entries(self, log: str, start: int, stop: int) -> Sequence[Entry]:
        """The entries from seq `start` to before `stop`, in order; fewer where the log ends."""
        entries = log_entries.c
        query = select(entries.seq, entries.event_id, entries.leaf).where(
            entries.log == log, entries.seq >= start, entries.seq < stop
        )
        with self._store.reading() as connection:
            return [Entry(*row) for row in connection.execute(query.order_by(entries.seq))]

    def inclusion(self, log: str, seq: int, size: int) -> Path:
        """RFC 6962, section 2.1.1: that entry `seq` is in the tree of the first `size` entries.

        At most log2(size) + 1 hashes. ValueError unless 0 <= seq < size <= the log's size.
        """
        return self.inclusions(log, [seq], size)[0]

    def inclusions(self, log: str, seqs: Sequence[int], size: int) -> list[Path]:
        """As `inclusion` of several entries; in order of seq that is 10 us each."""
        with self._nodes(log, size) as nodes:
            return [inclusion_path(nodes, seq, size) for seq in seqs]

    def consistency(self, log: str, old_size: int, size: int) -> Path:
        """RFC 6962, section 2.1.2: that the tree of `size` entries begins with that of `old_size`.

        ValueError unless 0 <= old_size <= size <= the log's size.
        """
        with self._nodes(log, size) as nodes:
            return consistency_path(nodes, old_size, size)

    @contextmanager
    def _nodes(self, log: str, size: int) -> Iterator[StoredNodes]:
        with self._store.reading() as connection:
            if size > self._size(connection, log):
                raise ValueError(f"the log {log} has no {size} entries")
            yield StoredNodes(self._rows, connection, log, size, self._cache)

    def _size(self, connection: Connection, log: str) -> int:
        newest = select(func.max(log_entries.c.seq)).where(log_entries.c.log == log)
        last: int | None = connection.execute(newest).scalar_one()
        return 0 if last is None else last + 1
