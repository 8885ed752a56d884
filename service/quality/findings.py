"""What a worker's child is asked about an explanation's quality, and what it says: plain JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import orjson

from service.evidence import Record
from service.secrets import Keyring

Measure = Literal["stability", "fidelity"]
Outcome = Literal[
    "measured", "constant", "zero", "one_column", "no_neighbour", "not_finite", "too_costly"
]
"""Of a measure. Metrics know `failed` too: a job that gave no findings at all."""

_HEAD = b'{"quality":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of a complete explanation as it is stored: fed (F,), None for missing; values (F, C)
    and outputs (C,). seed: of all that is drawn. row_seconds: what explaining it took.
    """

    model: str
    version: int
    digest: str
    method: str
    background_digest: str
    seed: int
    fed: Sequence[float | None]
    values: Sequence[Sequence[float]]
    outputs: Sequence[float]
    row_seconds: float

    @classmethod
    def of(cls, record: Record, method: str, keyring: Keyring) -> Self | None:
        """A row of the record drawn by its keyed seed, of those that are still there; None where
        there are no Shapley values.
        """
        decision = record.decision
        explanation: dict[str, Any] = orjson.loads(record.part("explanation"))
        values = explanation["values"] or ()
        rows = [row for row, own in enumerate(values) if own is not None]
        if not rows:
            return None
        digest: str = orjson.loads(decision.part("model"))["digest"]
        message = b"quality/" + decision.request_id.encode()
        seed = keyring.seed(decision.tenant, digest, message)
        row = rows[seed % len(rows)]
        return cls(
            model=decision.model,
            version=decision.version,
            digest=digest,
            method=method,
            background_digest=explanation["background_digest"],
            seed=seed,
            fed=orjson.loads(decision.part("fed"))[row],
            values=values[row],
            outputs=explanation["outputs"][row],
            row_seconds=(explanation["duration_seconds"] or 0.0) / len(values),
        )

    def to_bytes(self) -> bytes:
        """As JSON, that no other task looks like."""
        return _HEAD + orjson.dumps(self) + b"}"

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        return cls(**orjson.loads(data)["quality"])


def is_sample(task: bytes) -> bool:
    """It is a Sample's bytes."""
    return task.startswith(_HEAD)


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure, of at most 1; value None unless the outcome is `measured`."""

    outcome: Outcome
    value: float | None = None

    @classmethod
    def of(cls, value: float) -> Self:
        """Below 0 counts as 0: histograms whose sums go down look like restarts."""
        return cls("measured", min(1.0, max(0.0, value)))


@dataclass(frozen=True, slots=True)
class Findings:
    """Both measures, and what they cost."""

    found: Mapping[Measure, Finding]
    cpu_seconds: float
    model_evaluations: int

    def to_bytes(self) -> bytes:
        """As JSON."""
        return orjson.dumps(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        fields = orjson.loads(data)
        found = {measure: Finding(**said) for measure, said in fields.pop("found").items()}
        return cls(found, **fields)
