"""The policy of a running service: read again when the file changes, kept when it breaks."""

from pathlib import Path

from service.errors import CommandError
from service.logs import log
from service.policy.binding import bind
from service.policy.deciding import KeyOf, ModelPolicy
from service.policy.document import PolicyFile
from service.policy.terms import Vocabulary

Stamp = tuple[int, int]


class PolicyFollower:
    """The policy file in force. Raises UnavailableError, InvalidInputError if it cannot be read."""

    def __init__(self, path: Path, *, key_of: KeyOf) -> None:
        self._path = path
        self._key_of = key_of
        self._stamp = self._stamp_now()
        self.file = PolicyFile.read(path)
        log.info("policy_in_force", version=self.file.version)

    def refresh(self) -> bool:
        """Read the file again if it was written; True when another one is in force now.

        A file that cannot be read is told once and changes nothing.
        """
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            file = PolicyFile.read(self._path)
        except CommandError as error:
            log.error("policy_refused", error=str(error), kept=self.file.version)
            return False
        is_new = file.version != self.file.version
        self.file = file
        if is_new:
            log.info("policy_in_force", version=file.version)
        return is_new

    def bind(self, model: str, vocabulary: Vocabulary) -> ModelPolicy:
        """The rules in force for one model version. Raises InvalidInputError naming the place."""
        return bind(self.file, model, vocabulary, key_of=self._key_of)

    def _stamp_now(self) -> Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino)
