"""Files that are there after a power cut: a new name is durable once its directory is synced."""

import os
import tempfile
from pathlib import Path


def sync(path: Path) -> None:
    """Return once what a file holds, or the names in a directory, are durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make it, for its owner only, with those above it, unless it is there. Raises OSError."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Put a file that only its owner reads in the place of what is there: at once, and durably.

    Raises OSError, and then leaves what is there.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)
