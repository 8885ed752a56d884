"""Where checkpoints are kept: in the evidence database, and in a file beside it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from service.durability import replace_file
from service.evidence.events import EPOCH, microseconds
from service.evidence.tables import checkpoints
from service.ledger.errors import LogMismatchError
from service.ledger.notes import Checkpoint, parse_checkpoint


def latest_checkpoint(connection: Connection, log: str) -> Checkpoint | None:
    """The last one signed of a log. LogMismatchError if what is stored is none."""
    newest = select(checkpoints.c.note).where(checkpoints.c.log == log)
    newest = newest.order_by(checkpoints.c.size.desc()).limit(1)
    note = connection.execute(newest).scalar_one_or_none()
    if note is None:
        return None
    try:
        return parse_checkpoint(note)
    except ValueError as error:
        raise LogMismatchError(f"a stored checkpoint: {error}") from None


def signing_time(connection: Connection, log: str, size: int) -> datetime | None:
    """When the kept checkpoint of that size was signed; None if there is none."""
    query = select(checkpoints.c.signed_us).where(
        checkpoints.c.log == log, checkpoints.c.size == size
    )
    signed_us = connection.execute(query).scalar_one_or_none()
    return None if signed_us is None else EPOCH + timedelta(microseconds=signed_us)


def add_checkpoint(
    connection: Connection, log: str, checkpoint: Checkpoint, *, signed_us: int
) -> None:
    """Store a checkpoint; of earlier ones the last of each UTC day stays."""
    moment = EPOCH + timedelta(microseconds=signed_us)
    today = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    earlier = delete(checkpoints).where(
        checkpoints.c.log == log,
        checkpoints.c.size < checkpoint.size,
        checkpoints.c.signed_us >= microseconds(today),
        checkpoints.c.signed_us < microseconds(today + timedelta(days=1)),
    )
    connection.execute(earlier)
    row = {"log": log, "size": checkpoint.size, "signed_us": signed_us, "note": checkpoint.note}
    connection.execute(insert(checkpoints).values(row))


class CheckpointFile:
    """The last checkpoint outside the database, so that an old copy of that is noticed."""

    def __init__(self, directory: Path, log: str) -> None:
        self.path = directory / f"checkpoint.{log}"

    def read(self) -> Checkpoint | None:
        """None without a file. LogMismatchError if it cannot be read or is no checkpoint."""
        try:
            return parse_checkpoint(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no checkpoint"
            raise LogMismatchError(f"{self.path}: {reason}") from None

    def write(self, note: str) -> None:
        """Replace the file at once and durably. Raises OSError."""
        replace_file(self.path, note.encode())
