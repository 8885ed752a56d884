"""What goes to a worker's child process and what comes back: plain JSON, never a pickle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, Self

import numpy as np
import orjson

from explainers.base import FloatArray, Level
from service.evidence import FinalEvent, HeaderTemplate, Record, final_payload
from service.explaining import Tally, count
from service.metrics import ModelMetrics
from service.models.base import Served
from service.policy import Reasons
from service.provenance import Taken
from service.reasons import ReasonCounts
from service.secrets import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be explained and how; made of a stored record, sent to a child as JSON.

    instances: the N rows as JSON objects; fed: the same as numbers, (N, F), None for missing.
    outputs (N, C) and scores (N, K) were served. seeds (N,). method None: the version's own.
    """

    request_id: str
    model: str
    version: int
    digest: str
    method: str | None
    top: int
    seeds: Sequence[int]
    instances: Sequence[Mapping[str, Level | None]]
    fed: Sequence[Sequence[float | None]]
    outputs: Sequence[Sequence[float]]
    scores: Sequence[Sequence[float]]
    received_at: datetime
    principal: str
    taken: Taken
    policy_version: str | None
    retention_class: str
    policy: Mapping[str, Any] | None = None
    """What the record says of the decisions, where they are to have reasons; else None."""

    def to_bytes(self) -> bytes:
        """As JSON."""
        return orjson.dumps(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        fields = orjson.loads(data)
        fields["received_at"] = datetime.fromisoformat(fields["received_at"]).astimezone(UTC)
        fields["taken"] = Taken(**fields["taken"])
        return cls(**fields)

    @property
    def reasons(self) -> Reasons | None:
        """Those that the adverse decisions are to have."""
        return None if self.policy is None else Reasons.of_policy(self.policy)

    @property
    def rows(self) -> FloatArray:
        """(N, F) raw rows."""
        return np.array(self.fed, dtype=np.float64)

    @property
    def served(self) -> Served:
        """What the library returned for the rows when they were predicted."""
        return Served(np.array(self.outputs, np.float64), np.array(self.scores, np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A task's end: the bytes to store, and plain facts for the metrics.

    header: HeaderConstants as JSON, which name the version and the method used. rows: how many
    instances were to be explained.
    """

    status: Literal["complete", "failed"]
    reason: str | None
    method: str
    tally: Tally
    tolerance: float
    rows: int
    reasons: ReasonCounts
    completed_at: datetime
    explanation: bytes
    checks: bytes
    provenance: bytes
    header: bytes

    def to_bytes(self) -> bytes:
        """Five lines, each JSON: nothing that orjson writes has a line break."""
        facts = {
            "status": self.status,
            "reason": self.reason,
            "method": self.method,
            "tally": [*self.tally],
            "tolerance": self.tolerance,
            "rows": self.rows,
            "reasons": [*self.reasons],
            "completed_at": self.completed_at,
        }
        first = orjson.dumps(facts, option=orjson.OPT_SERIALIZE_NUMPY)
        return b"\n".join([first, self.explanation, self.checks, self.provenance, self.header])

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        first, explanation, checks, provenance, header = data.split(b"\n")
        facts = orjson.loads(first)
        moment = datetime.fromisoformat(facts.pop("completed_at")).astimezone(UTC)
        additivity, *others = facts.pop("tally")
        counts = ReasonCounts(*facts.pop("reasons"))
        tally = Tally([float("nan") if gap is None else gap for gap in additivity], *others)
        return cls(
            **facts,
            tally=tally,
            reasons=counts,
            completed_at=moment,
            explanation=explanation,
            checks=checks,
            provenance=provenance,
            header=header,
        )


class Asked(Protocol):
    """A stored decision whose explanation was queued."""

    @property
    def tenant(self) -> str: ...
    @property
    def request_id(self) -> str: ...
    @property
    def actor(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def received_at(self) -> datetime: ...
    @property
    def header(self) -> bytes: ...
    def part(self, name: str) -> bytes:
        """The exact bytes stored under that name."""
        ...


def task_of(record: Record, keyring: Keyring, *, taken: Taken) -> Task:
    """What a stored record asks to be explained. Seeds come from the instances alone."""
    return asked_of(record.decision, keyring, taken=taken)


def asked_of(decision: Asked, keyring: Keyring, *, taken: Taken) -> Task:
    """`task_of` of a decision without what followed."""
    parts = {
        name: orjson.loads(decision.part(name))
        for name in ("ask", "model", "instances", "fed", "outputs", "scores")
    }
    digest: str = parts["model"]["digest"]
    header = orjson.loads(decision.header)
    return Task(
        request_id=decision.request_id,
        model=decision.model,
        version=decision.version,
        digest=digest,
        method=parts["ask"]["method"],
        top=parts["ask"]["top"],
        seeds=[
            keyring.seed(decision.tenant, digest, orjson.dumps(instance))
            for instance in parts["instances"]
        ],
        instances=parts["instances"],
        fed=parts["fed"],
        outputs=parts["outputs"],
        scores=parts["scores"],
        received_at=decision.received_at,
        principal=decision.actor,
        taken=taken,
        policy_version=header["policy_version"],
        retention_class=header["retention_class"],
        policy=_policy(decision),
    )


def _policy(decision: Asked) -> Mapping[str, Any] | None:
    try:
        said: Mapping[str, Any] = orjson.loads(decision.part("policy"))
    except KeyError:
        return None
    if said.get("reasons") is None:
        return None
    return {name: said[name] for name in ("decisions", "reasons")}


def final_event(record: Record, finished: Finished) -> FinalEvent:
    """The event that ends a pending record."""
    decision = record.decision
    payload, parts = final_payload(finished.explanation, finished.provenance, finished.checks)
    retention = decision.template.retention
    return FinalEvent(
        template=HeaderTemplate.of_json(finished.header, retention=retention),
        tenant=decision.tenant,
        request_id=decision.request_id,
        actor=decision.actor,
        received_at=decision.received_at,
        completed_at=finished.completed_at,
        status=finished.status,
        outcome="stored" if finished.status == "complete" else "failed",
        payload=payload,
        parts=parts,
        parent_request_id=decision.parent_request_id,
        subjects=decision.subjects,
    )


def count_finished(metrics: ModelMetrics, finished: Finished, *, lane: str = "queued") -> None:
    """What whoever stored a final explanation counts beside its outcome: checks, size and cost, the
    latter in the lane of that name.
    """
    count(metrics, finished.tally, lane=lane, tolerance=finished.tolerance)
    finished.reasons.add_to(metrics)
    if finished.status == "complete":
        metrics.payload_size["queued"].observe(len(finished.explanation) / finished.rows)
