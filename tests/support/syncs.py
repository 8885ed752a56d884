"""Which files have been synced, and how much of them."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Syncs:
    """What os.fsync and os.fdatasync were really called for since."""

    seen: list[tuple[Path, int]] = field(default_factory=list)
    """Each file or directory, and the bytes it had by then."""

    @classmethod
    def watched(cls, monkeypatch: pytest.MonkeyPatch) -> "Syncs":
        syncs = cls()
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, syncs._noted(getattr(os, name)))
        return syncs

    def _noted(self, sync):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def noted(descriptor: int) -> None:
            sync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self.seen.append((path, os.fstat(descriptor).st_size))

        return noted

    def covers(self, path: Path) -> bool:
        """All that the file has by now."""
        return (path, path.stat().st_size) in self.seen

    def knows(self, directory: Path, *, since: int = 0) -> bool:
        """The names in the directory."""
        return any(path == directory for path, _ in self.seen[since:])
