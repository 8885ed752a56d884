"""What can be wrong with a registered version."""

from service.errors import CheckFailedError


class DamagedVersionError(CheckFailedError):
    """A version's files are not those that were registered."""


class GoldenMismatchError(CheckFailedError):
    """The loaded version no longer gives the numbers it was registered with.

    method: how it is explained, for the metrics.
    """

    def __init__(self, reason: str, *, method: str) -> None:
        super().__init__(reason)
        self.method = method
