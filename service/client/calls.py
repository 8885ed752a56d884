"""What can be asked of the service: each call as a flow, for both clients."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

from schemas import (
    Accepted,
    Answer,
    ModelInfo,
    ModelList,
    ModelReference,
    Proof,
    Record,
    RecordPage,
    RowWarning,
)
from schemas.counterfactuals import Counterfactuals
from schemas.messages import Prediction as Predicted
from schemas.strict_document import Document
from service.client.errors import StillPendingError
from service.client.explanation import Explanation, Instance
from service.client.sending import (
    Flow,
    Pause,
    Repeats,
    Request,
    answered,
    read,
    retry_after_seconds,
)

LONGEST_WAIT_SECONDS = 30
"""What the service waits at most for one request."""

PAGE = 200
ASK_AGAIN_SECONDS = 1.0
JSON = {"Content-Type": "application/json"}
Found = TypeVar("Found", bound=Document)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to a prediction; explanation is None unless asked for.

    is_replay: the same request was answered before, and this is that answer.
    """

    answer: Answer
    explanation: Explanation | None
    is_replay: bool

    @property
    def request_id(self) -> str:
        """Under which it is stored, and fetched again."""
        return self.answer.request_id

    @property
    def model(self) -> ModelReference:
        return self.answer.model

    @property
    def predictions(self) -> list[Predicted]:
        """One for each instance."""
        return self.answer.predictions

    @property
    def warnings(self) -> list[RowWarning]:
        """Valid values unlike the training data."""
        return self.answer.warnings


@dataclass(frozen=True, slots=True, eq=False)
class StoredPrediction:
    """The record of a past request, with its provenance."""

    record: Record
    explanation: Explanation | None

    @classmethod
    def of(cls, record: Record) -> Self:
        body = record.explanation
        return cls(record, None if body is None else Explanation(body, record.instances))

    @property
    def request_id(self) -> str:
        return self.record.request_id

    @property
    def predictions(self) -> list[Predicted | None]:
        """One for each instance; None of one that was erased."""
        return self.record.predictions

    @property
    def is_pending(self) -> bool:
        return self.explanation is not None and self.explanation.is_pending


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records to list."""

    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    status: str | None = None

    def query(self) -> dict[str, str | int]:
        """As the service reads it; a time without a zone is local."""
        return _given(
            model=self.model,
            status=self.status,
            since=_moment(self.since),
            until=_moment(self.until),
        )


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls, each repeated as `repeats` says; tenant: whose records are read, by default those
    of the key's first one.
    """

    repeats: Repeats = field(default_factory=Repeats)
    tenant: str | None = None

    def predict(  # noqa: PLR0913 - the parameters of the route
        self,
        instances: Iterable[Instance],
        *,
        model: str | None,
        explain: bool,
        top: int | None,
        request_id: str | None,
        wait: float | None,
        subjects: Sequence[str | None] | None,
    ) -> Flow[Prediction]:
        """POST /predict; after `wait`, over what one request waits, the record is asked."""
        rows: list[dict[str, Any]] = [
            {name: _plain(cell) for name, cell in row.items()} for row in instances
        ]
        body = {"instances": rows} | ({} if subjects is None else {"subjects": list(subjects)})
        request = Request(
            "POST",
            "/predict" if model is None else f"/models/{quote(model, safe='')}/predict",
            _given(explain="true" if explain else None, top=top),
            {**JSON, **_prefer(wait), "X-Request-ID": request_id or str(uuid4())},
            _encoded(body),
            wait_seconds=_at_once(wait),
        )
        ends_at = time.monotonic() + (wait or 0)
        response = yield from answered(request, self.repeats)
        answer = read(Answer, response)
        explanation = None if answer.explanation is None else Explanation(answer.explanation, rows)
        left = ends_at - time.monotonic()
        if explanation is not None and explanation.is_pending and left > 0 and wait:
            stored = yield from self._followed(answer.request_id, ends_at, None)
            assert stored.explanation is not None
            explanation = Explanation(stored.explanation.body, rows)
        return Prediction(answer, explanation, "idempotent-replay" in response.headers)

    def explanation(self, request_id: str, wait: float | None) -> Flow[StoredPrediction]:
        """GET /explanations/{request_id}, pending or not once `wait` is over."""
        ends_at = time.monotonic() + (wait or 0)
        return (yield from self._followed(request_id, ends_at, self.tenant))

    def wait_for(self, request_id: str, timeout: float) -> Flow[StoredPrediction]:
        """The record once it is final; StillPendingError after the timeout."""
        ends_at = time.monotonic() + timeout
        stored = yield from self._followed(request_id, ends_at, self.tenant)
        if stored.is_pending:
            raise StillPendingError(request_id)
        return stored

    def explain_again(
        self, request_id: str, method: str | None, new_request_id: str | None
    ) -> Flow[Accepted]:
        """POST /explanations."""
        body = {"request_id": request_id} | ({} if method is None else {"method": method})
        headers = {**JSON, "X-Request-ID": new_request_id or str(uuid4())}
        request = Request("POST", "/explanations", headers=headers, body=_encoded(body))
        return read(Accepted, (yield from answered(request, self.repeats)))

    def counterfactuals(self, request_id: str, instance: int) -> Flow[Counterfactuals]:
        """POST /counterfactuals about a past request."""
        body = _encoded({"request_id": request_id, "instance": instance})
        request = Request("POST", "/counterfactuals", headers=JSON, body=body, is_repeatable=False)
        return read(Counterfactuals, (yield from answered(request, self.repeats)))

    def page(self, matching: Filter, cursor: str | None) -> Flow[RecordPage]:
        """GET /explanations: one page, and the cursor that leads on."""
        query = matching.query() | {"limit": PAGE} | _given(cursor=cursor)
        return (yield from self._get(RecordPage, "/explanations", query))

    def proof(self, request_id: str) -> Flow[Proof]:
        """GET /explanations/{request_id}/proof, once the next checkpoint is signed (a second)."""
        return (yield from self._get(Proof, f"/explanations/{quote(request_id, safe='')}/proof"))

    def feedback(self, request_id: str, rating: int, comment: str | None) -> Flow[None]:
        """POST /explanations/{request_id}/feedback."""
        body = _given(rating=rating, comment=comment)
        yield from answered(_vote(request_id, "feedback", body), self.repeats)

    def labels(self, request_id: str, labels: Sequence[object]) -> Flow[None]:
        """POST /explanations/{request_id}/label."""
        body = {"labels": [_plain(label) for label in labels]}
        yield from answered(_vote(request_id, "label", body), self.repeats)

    def models(self) -> Flow[list[ModelInfo]]:
        """GET /models."""
        found = yield from self._get(ModelList, "/models")
        return found.items

    def model(self, name: str) -> Flow[ModelInfo]:
        """GET /models/{name}."""
        return (yield from self._get(ModelInfo, f"/models/{quote(name, safe='')}"))

    def _get(
        self, kind: type[Found], path: str, query: Mapping[str, str | int] | None = None
    ) -> Flow[Found]:
        reads_records = path.startswith("/explanations")
        own = _given(tenant=self.tenant) if reads_records else {}
        request = Request("GET", path, {**(query or {}), **own})
        return read(kind, (yield from answered(request, self.repeats)))

    def _followed(
        self, request_id: str, ends_at: float, tenant: str | None
    ) -> Flow[StoredPrediction]:
        """The record when it is final, or pending when the time is over; asked once at least."""
        path, query = f"/explanations/{quote(request_id, safe='')}", _given(tenant=tenant)
        while True:
            left = max(0.0, ends_at - time.monotonic())
            wait = _at_once(left)
            request = Request("GET", path, query, _prefer(wait or None), wait_seconds=wait)
            response = yield from answered(request, self.repeats)
            stored = StoredPrediction.of(read(Record, response))
            left = ends_at - time.monotonic()
            if not stored.is_pending or left <= 0:
                return stored
            # Also after a wait: a service that is stopping ends it early.
            yield Pause(min(left, retry_after_seconds(response) or ASK_AGAIN_SECONDS))


def _at_once(wait: float | None) -> int:
    """What one request is to wait, in whole seconds as the header has them; the rest is paused."""
    return min(LONGEST_WAIT_SECONDS, math.floor(wait or 0))


def _prefer(wait: float | None) -> dict[str, str]:
    if wait is None:
        return {}
    seconds = _at_once(wait)
    return {"Prefer": f"wait={seconds}" if seconds else "respond-async"}


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone().isoformat()


def _vote(request_id: str, what: str, body: Mapping[str, object]) -> Request:
    path = f"/explanations/{quote(request_id, safe='')}/{what}"
    return Request("POST", path, headers=JSON, body=_encoded(body))


def _given(**members: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in members.items() if value is not None}


def _encoded(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, allow_nan=False).encode()


def _plain(cell: object) -> object:
    """A cell as JSON has it: scalars of numpy are Python's, NaN is a missing cell."""
    item = getattr(cell, "item", None)
    value = item() if callable(item) else cell
    return None if isinstance(value, float) and math.isnan(value) else value
