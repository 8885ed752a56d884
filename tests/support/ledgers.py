"""Logs of a store, for tests of the ledger and of what is built on it."""

from collections.abc import Sequence
from pathlib import Path

import merkle
from decisions import decision
from sqlalchemy import create_engine, text

from service.evidence import EvidenceStore
from service.evidence.events import seal
from service.ledger import EVIDENCE, Ledger, Log
from service.ledger.checkpoints import CheckpointFile
from service.ledger.sequencing import Sequencer
from service.ledger.tree import leaf_hash
from service.secrets import Keyring

KEYRING = Keyring(bytes(range(32)))


def sequencer(
    store: EvidenceStore, log: Log = EVIDENCE, *, directory: Path | None = None
) -> Sequencer:
    file = None if directory is None else CheckpointFile(directory, log.name)
    return Sequencer(store, log, Ledger(store, KEYRING).signer, file)


def append(store: EvidenceStore, count: int) -> list[str]:
    """Store so many decisions; their event IDs."""
    events = [decision() for _ in range(count)]
    for start in range(0, count, 500):
        store.insert([seal(event) for event in events[start : start + 500]])
    return [event.event_id for event in events]


def query(url: str, statement: str) -> Sequence[tuple[object, ...]]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]
    finally:
        engine.dispose()


def assert_log_is_sound(url: str, *, entries: int) -> None:
    """Every event has exactly one place, places have no gaps, leaves are those of the headers, and
    the last checkpoint is of the tree of all of them.
    """
    headers = {str(i): bytes(h) for i, h in query(url, "SELECT event_id, header FROM events")}  # type: ignore[arg-type, call-overload]
    rows = query(
        url, "SELECT seq, event_id, leaf FROM log_entries WHERE log = 'evidence' ORDER BY seq"
    )
    assert [seq for seq, _, _ in rows] == list(range(entries))
    assert {str(event_id) for _, event_id, _ in rows} == set(headers)
    assert len(headers) == entries
    listed = [headers[str(event_id)] for _, event_id, _ in rows]
    assert [bytes(leaf) for _, _, leaf in rows] == [leaf_hash(header) for header in listed]  # type: ignore[arg-type, call-overload]
    with EvidenceStore.open(url) as store:
        checkpoint = Ledger(store, KEYRING).checkpoint()
    assert checkpoint is not None
    assert checkpoint.size == entries
    assert checkpoint.root == merkle.mth(listed)
