"""A child's work that gets ready in three pieces; the last one fails."""

from service.compute import OnProgress

PREPARED: list[int] = []
PIECES = 3


def prepare() -> bool:
    PREPARED.append(len(PREPARED))
    if len(PREPARED) == PIECES:
        raise OSError("the disk is gone")
    return True


def compute(_: bytes, __: OnProgress) -> bytes:
    """How many pieces are ready."""
    return b"%d" % len(PREPARED)
