"""Answers to a batch: predicted and explained together, decided on and encoded one by one."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import orjson

from explainers.base import FloatArray, Values
from schemas import DecodedBody
from service import answers, reasons
from service.answers import Facts, Fragments, Priority, Ranked, strongest
from service.auth import Caller
from service.errors import PredictionError
from service.evidence import DecisionEvent, Status
from service.explaining import Explained, ExplainedPart, encode_checks, explain_rows
from service.keyed_hash import keyed_hash
from service.logs import log, place_of
from service.models.base import Served
from service.planning import LEFT_OUT, NOTHING, QUEUED, SHED, Plan
from service.policy import PolicyDecision, Reasons
from service.reasons import NO_REASONS, Beside, ExplainedRows, ReasonCounts, row_array
from service.served import ServedModel


class Ask(NamedTuple):
    """One validated request."""

    request_id: str
    caller: Caller
    received_at: datetime
    body: DecodedBody
    instances: bytes
    """The validated rows as JSON, for the fingerprint and the record."""

    explain: bool
    top: int
    fingerprint: str
    subjects: str | None
    trace_id: str | None = None
    plan: Plan = NOTHING
    priority: Priority = "high"
    answer_by: datetime | None = None
    """Until then the answer waits for a queued explanation."""

    parent_request_id: str | None = None
    """Of an explanation nobody asked for: the prediction's."""

    is_counted: bool = True
    """That it is wanted is counted by who asks, and somebody scrapes them."""

    @property
    def is_inline(self) -> bool:
        """Its explanation is computed here and now."""
        return self.plan.lane == "inline"

    def ruled(self, ruling: PolicyDecision | None) -> "Ask":
        """The same but for what policy does not allow, or wants whether there is room or not."""
        if ruling is None or not self.explain:
            return self
        if not ruling.allowed:
            return self._replace(plan=Plan(None, ruling.skipped))
        if ruling.is_drawn and self.plan in (SHED, LEFT_OUT):
            return self._replace(plan=QUEUED)
        return self

    def explained_unasked(self, served: ServedModel) -> "Ask":
        """The explanation policy wants of a prediction that came without: a record of its own.

        Its ID follows from the prediction's, so that a repetition does not make another one, and
        is keyed, so that no client can take it first.
        """
        assert served.policy is not None
        key = served.policy.key_of(self.caller.tenant)
        code = keyed_hash(key, b"unasked/" + self.request_id.encode())
        return self._replace(
            request_id=code[:16].hex(),
            explain=True,
            plan=QUEUED,
            priority="low",
            answer_by=None,
            parent_request_id=self.request_id,
        )


class Prepared(NamedTuple):
    """The answer, and the event that must be durable before it leaves."""

    answer: bytes
    event: DecisionEvent
    explained: ExplainedPart | None
    explanation_size: int
    plan: Plan = NOTHING
    """What became of the explanation, after policy."""

    unasked: DecisionEvent | None = None
    """The record of an explanation that policy wants and nobody asked for."""

    is_canary: bool = False
    """A second engine is to check its explanation later."""

    reasons: ReasonCounts = NO_REASONS
    """Of its adverse decisions, unless their explanation is still to come."""


def run(served: ServedModel, asks: Sequence[Ask]) -> list[Prepared | PredictionError]:
    """Answer a batch; if the model fails on it, each request alone, so that one bad row (or one
    library bug) fails only its own request.
    """
    try:
        return _run_together(served, asks)
    except Exception as error:  # noqa: BLE001 - whatever the native library raises
        if len(asks) > 1:
            return [result for ask in asks for result in run(served, [ask])]
        log.error(
            "prediction_failed",
            request_id=asks[0].request_id,
            trace_id=asks[0].trace_id,
            model=served.model.name,
            place=place_of(error),
        )
        served.metrics.errors("predict", type(error).__name__).inc()
        return [PredictionError()]


def _run_together(served: ServedModel, asks: Sequence[Ask]) -> list[Prepared | PredictionError]:
    # Rows to explain come first, so that they are one contiguous block.
    order = sorted(range(len(asks)), key=lambda i: not asks[i].is_inline)
    rows: list[Sequence[float]] = []
    for i in order:
        rows += asks[i].body.codes
    X = np.array(rows, dtype=np.float64)
    output = served.model.native.predict(X)
    if not (np.isfinite(output.outputs).all() and np.isfinite(output.scores).all()):
        raise FloatingPointError("JSON has no number for what the model serves")
    spans = _places(asks, order)
    rulings = _rulings(served, asks, spans, output)
    asks = [ask.ruled(ruling) for ask, ruling in zip(asks, rulings, strict=True)]
    computed = _explained(served, asks, order, X, output)
    if computed.is_broken and len(asks) > 1:
        return [result for ask in asks for result in run(served, [ask])]
    prepared: list[Prepared | PredictionError] = [
        _prepare(served, ask, _Own.of(computed, i, spans[i]), rulings[i])
        for i, ask in enumerate(asks)
    ]
    if served.tap is not None:
        served.tap.see(X, output.scores, computed.sound_values)
    return prepared


def _places(asks: Sequence[Ask], order: Sequence[int]) -> dict[int, slice]:
    """Where the rows of each ask lie when those of the given ones stand in this order."""
    places, stop = {}, 0
    for i in order:
        start, stop = stop, stop + len(asks[i].body.codes)
        places[i] = slice(start, stop)
    return places


def _rulings(
    served: ServedModel, asks: Sequence[Ask], spans: Mapping[int, slice], output: Served
) -> Sequence[PolicyDecision | None]:
    policy = served.policy
    if policy is None:
        return [None] * len(asks)
    return [
        policy.decide(
            ask.caller.tenant,
            ask.request_id,
            ask.body.rows,
            output.scores[spans[i]],
            asked=ask.explain,
        )
        for i, ask in enumerate(asks)
    ]


class _Computed(NamedTuple):
    """What a batch's rows gave; explained and ranked are of the rows at `heads`."""

    output: Served
    explained: Explained | None
    ranked: Ranked | None
    heads: Mapping[int, slice]
    completed_at: datetime

    @property
    def is_broken(self) -> bool:
        """The explainer itself failed, and with it all requests of the batch."""
        return self.explained is not None and self.explained.explanation is None

    @property
    def sound_values(self) -> Values | None:
        """Of the rows whose explanation passed every check."""
        explained = self.explained
        if explained is None or explained.explanation is None:
            return None
        values = explained.explanation.values
        if not any(explained.reasons):
            return values
        return values[[reason is None for reason in explained.reasons]]


def _explained(
    served: ServedModel, asks: Sequence[Ask], order: Sequence[int], X: FloatArray, output: Served
) -> _Computed:
    """Explain the rows of those asks that are inline, which come first unless policy left gaps."""
    inline = [i for i in order if asks[i].is_inline]
    explained = ranked = None
    heads = _places(asks, inline)
    if inline:
        kept: slice | list[int] = slice(0, heads[inline[-1]].stop)
        spans = _places(asks, order)
        if spans[inline[-1]] != heads[inline[-1]]:
            kept = [row for i in inline for row in range(spans[i].start, spans[i].stop)]
        head = Served(output.outputs[kept], output.scores[kept])
        explained = explain_rows(served.model, X[kept], head)
        if explained is not None and explained.explanation is not None:
            top = max(asks[i].top for i in inline)
            ranked = Ranked.of(explained.explanation.values, top)
    return _Computed(output, explained, ranked, heads, datetime.now(UTC))


class _Own(NamedTuple):
    """One request's share of what a batch gave: outputs (N, C), scores (N, K)."""

    outputs: FloatArray
    scores: FloatArray
    part: ExplainedPart | None
    ranked: Ranked | None
    completed_at: datetime

    @classmethod
    def of(cls, computed: _Computed, number: int, span: slice) -> "_Own":
        explained, place = computed.explained, computed.heads.get(number)
        return cls(
            computed.output.outputs[span],
            computed.output.scores[span],
            None if explained is None or place is None else explained.part(place),
            computed.ranked,
            computed.completed_at,
        )


def _prepare(served: ServedModel, ask: Ask, own: _Own, ruling: PolicyDecision | None) -> Prepared:
    answer, event, size, counts = _decision(served, ask, own, ruling)
    unasked = None
    can_explain = served.model.manifest.explainer.method is not None
    if ruling is not None and ruling.is_drawn and can_explain and not ask.explain:
        _, unasked, *_ = _decision(served, ask.explained_unasked(served), own, ruling)
    is_canary = ruling is not None and ruling.is_canary and event.status == "complete"
    return Prepared(answer, event, own.part, size, ask.plan, unasked, is_canary, counts)


def _decision(
    served: ServedModel, ask: Ask, own: _Own, ruling: PolicyDecision | None
) -> tuple[bytes, DecisionEvent, int, ReasonCounts]:
    """The answer, the event that records it, the size of the explanation in bytes, and how many
    adverse decisions got reasons.
    """
    status, explanation, counts = _explanation(served, ask, own, ruling)
    decisions = None if ruling is None else ruling.decisions
    fragments = Fragments(
        predictions=answers.encode_predictions(served.templates, own.scores, decisions),
        warnings=answers.encode_warnings(served.model.codec.warnings(ask.body, served.model.seen)),
        explanation=explanation,
    )
    answer, ranges = answers.encode_answer(served.templates.model, ask.request_id, fragments)
    facts = _facts(served, ask, own, ruling)
    payload, parts = answers.encode_payload(answer, ranges, facts)
    event = DecisionEvent(
        template=served.header,
        request_id=ask.request_id,
        received_at=ask.received_at,
        completed_at=own.completed_at,
        status=status,
        lane=ask.plan.lane,
        payload=payload,
        parts=parts,
        tenant=ask.caller.tenant,
        actor=ask.caller.principal,
        auth_method=ask.caller.auth_method,
        parent_request_id=ask.parent_request_id,
        subjects=ask.subjects,
    )
    return answer, event, len(explanation), counts


def _facts(served: ServedModel, ask: Ask, own: _Own, ruling: PolicyDecision | None) -> Facts:
    """What the record says beside the answer."""
    provenance = answers.encode_provenance(
        served.templates,
        lane=ask.plan.lane,
        received_at=ask.received_at,
        completed_at=own.completed_at,
        principal=ask.caller.principal,
        cpu_seconds=None if own.part is None else own.part.cpu_seconds,
    )
    extras = {} if ruling is None else {"policy": orjson.dumps(ruling.to_json())}
    if ask.subjects is not None:
        extras["subjects"] = ask.subjects.encode()
    if ask.plan.lane == "queued":
        extras["ask"] = answers.encode_ask(
            ask.top,
            ask.priority,
            ask.answer_by,
            is_counted=ask.is_counted,
            trace_id=ask.trace_id,
        )
    elif own.part is not None:
        extras["checks"] = encode_checks(own.part.reason)
    return Facts(
        *(ask.instances, provenance, ask.fingerprint, ask.body.codes, own.outputs, own.scores),
        extras=extras,
    )


def _explanation(
    served: ServedModel, ask: Ask, own: _Own, ruling: PolicyDecision | None
) -> tuple[Status | None, bytes, ReasonCounts]:
    """Status and bytes of the explanation of one request, and the reasons in it."""
    if not ask.explain:
        return None, b"null", NO_REASONS
    said = None if ruling is None else ruling.reasons
    part = own.part
    if ask.plan.lane == "queued":
        return _unexplained(served, ask, "pending", None, reasons.pending(said))
    if part is None:
        refusal = ask.plan.refusal
        return _unexplained(
            served, ask, "skipped", refusal, reasons.withheld(said, "skipped", refusal)
        )
    failure = part.reason
    if failure is None:
        try:
            return _complete(served, ask, own, said)
        except Exception as error:  # noqa: BLE001 - the prediction must outlive its explanation
            log.error("explanation_not_encoded", request_id=ask.request_id, place=place_of(error))
            failure = answers.NOT_ENCODED
    return _unexplained(served, ask, "failed", failure, reasons.withheld(said, "failed", failure))


def _complete(
    served: ServedModel, ask: Ask, own: _Own, said: Reasons | None
) -> tuple[Status, bytes, ReasonCounts]:
    part, ranked = own.part, own.ranked
    assert part is not None
    assert ranked is not None  # what has passed the checks is ranked
    beside = reasons.NOTHING
    if said is not None:
        assert served.policy is not None
        rows = ExplainedRows(
            served.model, part, row_array(ask.body.codes), Served(own.outputs, own.scores)
        )
        beside = reasons.given(said, rows, served.policy.cohort)
    explanation = answers.encode_explanation(
        served.templates,
        part,
        own.outputs,
        strongest(served.templates, ranked, part.rows, ask.body.rows, ask.top),
        request_id=ask.request_id,
        beside=beside,
    )
    return "complete", explanation, ReasonCounts.of(beside)


def _unexplained(
    served: ServedModel, ask: Ask, status: Status, reason: str | None, beside: Beside
) -> tuple[Status, bytes, ReasonCounts]:
    explanation = answers.encode_unexplained(
        *(served.model, status, reason),
        lane=None if status == "skipped" else ask.plan.lane,
        request_id=ask.request_id,
        beside=beside,
    )
    return status, explanation, ReasonCounts.of(beside)
