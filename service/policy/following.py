"""The policy of a running service: read again when the file changes, kept when it breaks."""

from collections.abc import Iterable
from pathlib import Path

from service.errors import CommandError
from service.logs import log
from service.policy.document import PolicyFile

Stamp = tuple[int, int]


class PolicyFollower:
    """Gives the file each time it has changed; a broken one is told once and passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: Stamp | None = None

    def open(self) -> PolicyFile:
        """The file at start. Raises UnavailableError, InvalidInputError."""
        self._stamp = self._stamp_now()
        return PolicyFile.read(self._path)

    def changed(self) -> PolicyFile | None:
        """The file if it was written since the last call and can be read, else None."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            return PolicyFile.read(self._path)
        except CommandError as error:
            self.refuse(error)
            return None

    def refuse(self, error: CommandError) -> None:
        """Tell that what the file says now does not count."""
        log.error("policy_refused", error=str(error), kept="the policy read before stays in force")

    def accept(self, file: PolicyFile, models: Iterable[str]) -> None:
        """Tell that a file is in force, and of sections for models that are not served."""
        log.info("policy_in_force", version=file.version)
        strangers = sorted(set(file.document.models) - set(models))
        if strangers:
            log.warning("policy_for_unknown_models", models=strangers)

    def _stamp_now(self) -> Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino)
