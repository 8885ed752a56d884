"""Files that are there after a power cut: a new name is durable once its directory is synced."""

import os
from pathlib import Path
from secrets import token_hex


def sync(path: Path) -> None:
    """Return once what a file holds, or the names in a directory, are durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make it, and those above it, each for its owner only and durably, unless it is there. Raises
    OSError.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync(path.parent)


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put a file, by default one that only its owner reads, in the place of what is there: at once,
    and durably. Readers see the old bytes or the new, never a mixture.

    Raises OSError, and then leaves what is there; unless it is the directory that cannot be synced,
    when the new file is in its place, and a power cut may bring the old one back.
    """
    draft = path.with_name(f".{path.name}.{token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
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
