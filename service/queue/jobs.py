"""What is queued: which explanation is wanted. Never what it is computed from."""

from dataclasses import dataclass
from typing import Literal

import orjson

Priority = Literal["high", "low"]
Kind = Literal["explanation", "canary", "quality"]
PRIORITIES: tuple[Priority, ...] = ("high", "low")

JobKey = tuple[str, str]
"""Tenant and request ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One explanation to compute. Inputs stay in the evidence store, so the queue's server holds
    no personal data.

    digest: of the model version; a worker must have that very version. received_us: microseconds
    since 1970 of the decision. method: None for the version's own. kind: canary to check an
    explanation that is there, quality to measure it.
    """

    tenant: str
    request_id: str
    model: str
    version: int
    digest: str
    priority: Priority
    received_us: int
    method: str | None = None
    trace_id: str | None = None
    kind: Kind = "explanation"

    @property
    def key(self) -> JobKey:
        """What it is about."""
        return self.tenant, self.request_id

    @property
    def field(self) -> str:
        """Its place in the index; a request ID holds no slash or space, so no two jobs share one.

        An explanation's measuring is queued while its own job is still to be taken off.
        """
        field = f"{self.tenant}/{self.request_id}"
        return f"{field} {self.kind}" if self.kind == "quality" else field

    def encode(self) -> bytes:
        """The bytes that are queued."""
        return orjson.dumps(self)

    @classmethod
    def decode(cls, encoded: bytes) -> "Job":
        """Raises ValueError for bytes that are no job; fields of a later release are ignored."""
        try:
            given = orjson.loads(encoded)
            return cls(**{name: given[name] for name in cls.__slots__ if name in given})
        except (TypeError, orjson.JSONDecodeError) as error:
            raise ValueError("the queue entry is no job of this release") from error
