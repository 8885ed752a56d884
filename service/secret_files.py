"""Files of random bytes that only their owner reads."""

import os
from contextlib import suppress
from pathlib import Path

from service.durability import make_directory, sync


def read_or_create(path: Path, size: int) -> bytes:
    """The file's bytes; random ones (mode 0600), durably, if it does not exist. Raises OSError.

    A hard link makes the file appear whole or not at all, and only one starter wins.
    """
    make_directory(path.parent)
    if path.exists():
        with suppress(OSError):  # its maker may have been stopped before; others' cannot be synced
            sync(path.parent)
        return path.read_bytes()
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    sync(path.parent)
    return path.read_bytes()
