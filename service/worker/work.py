"""What a worker needs to know of the work itself: where it comes from and where results go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, Protocol

from service.compute import Finished
from service.queue import Claim


class Absent(Enum):
    """Why there is nothing to compute for a job."""

    FINAL = auto()
    """It has its final explanation: computed by another worker, or cancelled."""
    UNKNOWN = auto()
    """The evidence store has no such record."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A job that ends without a result.

    outcome: `dead` if it ended its process or was not finished by any delivery, `failed` if it
    raised or no worker has what it needs.
    """

    outcome: Literal["failed", "dead"]
    reason: str


Ending = Finished | GivenUp


class Assignment(Protocol):
    """One job, fetched."""

    @property
    def task(self) -> bytes:
        """What the child is sent."""
        ...

    def refused(self, kind: str) -> None:
        """Count that this worker refused what it has of what the task needs, for such an error."""
        ...

    async def store(self, ending: Ending) -> None:
        """Return once the end is durable, whoever stored one first; count it if this call did.

        Raises StoreUnavailableError or StoreBusyError; it is called again then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Uncomputable:
    """A job that can only be ended: its record cannot be read."""

    assignment: Assignment
    reason: str


Fetched = Assignment | Uncomputable | Absent


class Work(Protocol):
    """Where a worker's tasks come from."""

    @property
    def function(self) -> str:
        """The ComputeJob for the child, as `module:function`."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """Added to this process's own for the child."""
        ...

    async def fetch(self, claims: Sequence[Claim]) -> Sequence[Fetched]:
        """What is to be done for each job. Raises StoreUnavailableError or StoreBusyError."""
        ...

    async def close(self) -> None:
        """Let go of what was opened."""
        ...
