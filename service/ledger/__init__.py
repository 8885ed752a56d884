"""The tamper-evident logs: every event has a place in a Merkle tree whose root is signed."""

from service.ledger.errors import LogMismatchError
from service.ledger.ledger import Entry, Ledger
from service.ledger.lines import proven_line
from service.ledger.notes import Checkpoint, LogSigner, hashes_text, parse_checkpoint
from service.ledger.rows import ACCESS, EVIDENCE, LOGS, Log
from service.ledger.running import Sequencing

__all__ = [
    "ACCESS",
    "EVIDENCE",
    "LOGS",
    "Checkpoint",
    "Entry",
    "Ledger",
    "Log",
    "LogMismatchError",
    "LogSigner",
    "Sequencing",
    "hashes_text",
    "parse_checkpoint",
    "proven_line",
]
