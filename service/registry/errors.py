"""What can be wrong with a registered version."""

from service.errors import CheckFailedError


class DamagedVersionError(CheckFailedError):
    """A version's files are not those that were registered."""


class GoldenMismatchError(CheckFailedError):
    """The loaded version no longer gives the numbers it was registered with."""
