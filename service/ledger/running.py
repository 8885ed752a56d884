"""Sequencing while a service runs: all logs, in a thread of its own, twice a second."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Protocol, Self

from service.evidence import EvidenceError, EvidenceStore
from service.ledger.checkpoints import CheckpointFile
from service.ledger.errors import LogMismatchError
from service.ledger.notes import LogSigner
from service.ledger.rows import LOGS
from service.ledger.sequencing import Sequencer
from service.logs import log as lines
from service.logs import place_of

LINE_SECONDS = 60.0


class SequencingObserver(Protocol):
    """Told by the sequencing thread."""

    def on_failure(self, kind: str) -> None:
        """A log could not be brought up to date, by an error of that class."""
        ...

    def on_waiting(self, rows: int) -> None:
        """After each turn: that many stored rows have no place in their log yet."""
        ...


class _Following:
    """One log: its sequencer, and where its checkpoints go."""

    def __init__(self, sequencer: Sequencer, file: CheckpointFile) -> None:
        self.sequencer = sequencer
        self.trouble: str | None = None
        self._file = file
        self._filed_size = 0
        self._can_file = True
        self._lined_size = 0
        self._lined_at = -LINE_SECONDS

    def turn(self, *, is_last: bool) -> None:
        """Sequence, and tell of the new checkpoint. Raises EvidenceError."""
        if self.trouble is not None:
            raise LogMismatchError(self.trouble)
        try:
            self.sequencer.run(is_last=is_last)
        except LogMismatchError as error:
            self.trouble = str(error)
            lines.error("log_mismatch", log=self.sequencer.log.name, reason=self.trouble)
            raise
        self._file_checkpoint()
        self._line(is_last=is_last)

    def _file_checkpoint(self) -> None:
        signed = self.sequencer.signed
        if signed is None or signed.size == self._filed_size:
            return
        try:
            self._file.write(signed.note)
            self._filed_size, self._can_file = signed.size, True
        except OSError as error:
            if self._can_file:
                path, reason = str(self._file.path), error.strerror
                lines.warning("log_checkpoint_not_filed", path=path, reason=reason)
            self._can_file = False

    def _line(self, *, is_last: bool) -> None:
        signed = self.sequencer.signed
        if signed is None or signed.size == self._lined_size:
            return
        if is_last or time.monotonic() - self._lined_at >= LINE_SECONDS:
            lines.info("log_checkpoint", log=self.sequencer.log.name, note=signed.note)
            self._lined_size, self._lined_at = signed.size, time.monotonic()


class Sequencing:
    """Keeps the logs of one database up to date; each process of a service may have one.

    A log that is not what it was is left alone until an operator has looked: what is stored goes
    on being stored, and is put into the log afterwards.
    """

    pause_seconds = 0.5
    """Between two turns."""

    def __init__(self, followings: Sequence[_Following], observer: SequencingObserver) -> None:
        self._followings = followings
        self._observer = observer
        self._is_ending = Event()
        self._thread = Thread(target=self._run, name="sequencer", daemon=True)

    @classmethod
    def of(
        cls,
        store: EvidenceStore,
        signer: LogSigner,
        directory: Path,
        observer: SequencingObserver,
    ) -> Self:
        """Of all logs. directory: where the files of their last checkpoints are."""
        followings = []
        for log in LOGS.values():
            file = CheckpointFile(directory, log.name)
            followings.append(_Following(Sequencer(store, log, signer, file), file))
        return cls(followings, observer)

    @property
    def troubles(self) -> Mapping[str, str]:
        """Logs that are not what was signed, and what is wrong with them."""
        return {each.sequencer.log.name: each.trouble for each in self._followings if each.trouble}

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Put what is stored by now into the logs, sign, and end."""
        self._is_ending.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._is_ending.wait(self.pause_seconds):
            self._turn(is_last=False)
        self._turn(is_last=True)

    def _turn(self, *, is_last: bool) -> None:
        waiting = sum(self._turn_of(each, is_last=is_last) for each in self._followings)
        self._observer.on_waiting(waiting)

    def _turn_of(self, following: _Following, *, is_last: bool) -> int:
        """Bring one log up to date; how many rows still wait, as far as that can be told."""
        try:
            following.turn(is_last=is_last)
        except EvidenceError as error:
            self._observer.on_failure(type(error).__name__)
            if not isinstance(error, LogMismatchError):
                lines.warning("sequencer_waits_for_store", reason=str(error))
        except Exception as error:  # noqa: BLE001  # this thread must outlive whatever a turn does
            self._observer.on_failure(type(error).__name__)
            lines.error("sequencer_failed", place=place_of(error))
        return _waiting(following.sequencer)


def _waiting(sequencer: Sequencer) -> int:
    try:
        return sequencer.waiting()
    except EvidenceError:
        return 0
