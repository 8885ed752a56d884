"""The bytes of answers and records: encoded once, then stored, hashed and served as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple, Self

import orjson

from explainers.base import FloatArray, Level, Values
from service.evidence import Lane, Parts, Status, laid_out
from service.explaining import ExplainedPart
from service.provenance import Taken, provenance_of
from service.registry import RegisteredModel
from service.registry.card import CAVEAT
from service.registry.described import KnownVersion
from service.registry.naming import class_text

NUMPY = orjson.OPT_SERIALIZE_NUMPY
PAYLOAD_HEAD = b'{"answer":'
DEFAULT_TOP = 5
NOT_ENCODED = "the explanation could not be written as JSON"
NOTHING: Mapping[str, object] = MappingProxyType({})
NOBODY: Mapping[str, None] = {"worker": None}

Priority = Literal["high", "low"]
"""Of a queued explanation: asked for by a request that waits, or by nobody in particular."""


@dataclass(frozen=True, slots=True)
class AnswerTemplates:
    """Everything in an answer that is the same for all requests to one model version."""

    model: bytes
    provenance: bytes
    spaces: bytes
    inline_head: bytes
    class_keys: tuple[str, ...] | None
    classes: tuple[Level, ...] | None
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @classmethod
    def of(cls, model: RegisteredModel) -> Self:
        """Encode the constants of a version."""
        manifest = model.manifest
        explainer = manifest.explainer
        spaces = orjson.dumps(_spaces(model))[1:-1]
        return cls(
            model=orjson.dumps(
                {"name": manifest.name, "version": manifest.version, "digest": model.digest}
            ),
            provenance=orjson.dumps(provenance_of(model))[:-1],
            spaces=spaces,
            inline_head=_head(
                "inline", explainer.method, model.engine, spaces=spaces, is_exact=True
            ),
            class_keys=None
            if manifest.classes is None
            else tuple(map(class_text, manifest.classes)),
            classes=manifest.classes,
            feature_names=model.schema.names,
            output_names=explainer.output_names,
        )

    def explained_by(self, model: RegisteredModel, config_digest: str) -> Self:
        """The same, for explanations of this version by a method of that digest."""
        provenance = orjson.dumps(provenance_of(model, config_digest=config_digest))[:-1]
        return replace(self, provenance=provenance)


def _head(
    lane: Lane, method: str | None, engine: str | None, *, spaces: bytes, is_exact: bool
) -> bytes:
    """The beginning of a complete explanation, up to its own numbers."""
    own = orjson.dumps({"lane": lane, "method": method, "engine": engine, "exact": is_exact})
    return b'{"status":"complete","reason":null,' + own[1:-1] + b"," + spaces + b","


def _spaces(model: KnownVersion) -> dict[str, object]:
    explainer = model.manifest.explainer
    return {
        "output_space": explainer.output_space,
        "link": explainer.link,
        "output_names": explainer.output_names,
        "feature_names": model.schema.names,
    }


def encode_predictions(
    templates: AnswerTemplates, scores: FloatArray, decisions: Sequence[str | None] | None = None
) -> bytes:
    """(N, K) scores as the contract's list of predictions, with what policy decided of each."""
    predictions: list[dict[str, object]]
    if templates.classes is None or templates.class_keys is None:
        predictions = [{"value": value} for value in scores[:, 0].tolist()]
    else:
        keys, classes = templates.class_keys, templates.classes
        predictions = [
            {
                "label": classes[row.index(max(row))],
                "probabilities": dict(zip(keys, row, strict=True)),
            }
            for row in scores.tolist()
        ]
    if decisions is not None:
        for prediction, decision in zip(predictions, decisions, strict=True):
            prediction["decision"] = decision
    return orjson.dumps(predictions)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Per row of a batch the entries of largest |contribution| over all outputs, and these
    contributions; ties in order. An entry counts columns times outputs.
    """

    entries: list[list[int]]
    contributions: list[list[float]]

    @classmethod
    def of(cls, values: Values, most: int) -> Self:
        """The strongest `most` entries of each row of values, (N, F, C)."""
        from explainers.tree.kernel import strongest

        entries, contributions = strongest(values.reshape(len(values), -1), most)
        return cls(entries.tolist(), contributions.tolist())


class Queued(NamedTuple):
    """What a queued explanation says otherwise than an inline one: the method it was asked by, and
    objects beside its values.
    """

    method: str
    extras: Mapping[str, object]


def encode_explanation(  # noqa: PLR0913 (all that explanations say, and where it is from)
    templates: AnswerTemplates,
    part: ExplainedPart,
    outputs: FloatArray,
    top: Sequence[Sequence[Mapping[str, object]]],
    *,
    request_id: str,
    queued: Queued | None = None,
    beside: Mapping[str, object] = NOTHING,
) -> bytes:
    """The complete explanation of one request: its rows of a batch, served outputs (N, C).

    queued: None for an inline one, whose method and engine are the version's. beside: members
    that only some explanations have.
    """
    explanation = part.explanation
    assert explanation is not None
    errors, seeds = explanation.standard_errors, explanation.seeds
    own = {
        "values": explanation.values[part.rows],
        "base_values": explanation.base_values[part.rows],
        "outputs": outputs,
        "standard_errors": None if errors is None else errors[part.rows],
        "additivity_error": part.additivity,
        "top": top,
        "background_digest": explanation.background_digest,
        "seed": None if seeds is None else seeds[part.rows],
        "model_evaluations": explanation.model_evaluations,
        "duration_seconds": round(part.duration_seconds, 7),
        "caveat": CAVEAT,
        "links": {"self": f"/explanations/{request_id}"},
        **beside,
    }
    head = templates.inline_head
    if queued is not None:
        own |= queued.extras
        facts = queued.method, explanation.engine
        head = _head("queued", *facts, spaces=templates.spaces, is_exact=explanation.exact)
    return head + orjson.dumps(own, option=NUMPY)[1:]


def strongest(
    templates: AnswerTemplates,
    ranked: Ranked,
    rows: slice,
    instances: Sequence[Sequence[Level | None]],
    top: int,
) -> list[list[dict[str, object]]]:
    """The first entries of one request's rows of a batch, with names and the instances' values."""
    names, outputs = templates.feature_names, templates.output_names
    width = len(outputs)
    return [
        [
            {
                "feature": names[entry // width],
                "value": instance[entry // width],
                "contribution": contribution,
                "output": outputs[entry % width],
            }
            for entry, contribution in zip(entries[:top], contributions, strict=False)
        ]
        for entries, contributions, instance in zip(
            ranked.entries[rows], ranked.contributions[rows], instances, strict=True
        )
    ]


def encode_unexplained(  # noqa: PLR0913 (what stands in the place of numbers)
    model: KnownVersion,
    status: Status,
    reason: str | None,
    *,
    lane: Lane | None,
    request_id: str,
    method: str | None = None,
    beside: Mapping[str, object] = NOTHING,
) -> bytes:
    """An explanation that is not there, or not yet, with the reason; every array is null.

    method: the one asked for, by default the version's own.
    """
    return orjson.dumps(
        {
            "status": status,
            "reason": reason,
            "lane": lane,
            "method": method or model.manifest.explainer.method,
            "engine": None,
            "exact": None,
            **_spaces(model),
            "values": None,
            "base_values": None,
            "outputs": None,
            "standard_errors": None,
            "additivity_error": None,
            "top": None,
            "background_digest": model.manifest.background.digest,
            "seed": None,
            "model_evaluations": 0,
            "duration_seconds": None,
            "caveat": CAVEAT,
            "links": {"self": f"/explanations/{request_id}"},
            **beside,
        }
    )


def encode_other(  # noqa: PLR0913 (what it took stands beside what it is)
    version: KnownVersion,
    method: str,
    extras: Mapping[str, object],
    *,
    request_id: str,
    seeds: Sequence[int] | None,
    model_evaluations: int,
    duration_seconds: float,
) -> bytes:
    """A complete explanation that is no Shapley value: its own objects, the arrays null."""
    nothing = encode_unexplained(
        version, "complete", None, lane="queued", request_id=request_id, method=method
    )
    own = {
        **extras,
        "seed": seeds,
        "model_evaluations": model_evaluations,
        "duration_seconds": round(duration_seconds, 7),
    }
    return orjson.dumps(orjson.loads(nothing) | own, option=NUMPY)


ANSWER_PARTS = ("model", "predictions", "warnings", "explanation")
COPIED_PARTS = ("instances", "fed", "outputs", "scores", "policy")
"""Of a record's payload, what another explanation of the same prediction has as it is, if it is
there: `policy` says what was decided.
"""


class Fragments(NamedTuple):
    """The encoded pieces of one answer."""

    predictions: bytes
    explanation: bytes
    warnings: bytes


class Facts(NamedTuple):
    """What only the record says of a request: its rows as they came and as they were fed, (N, F),
    and the served outputs (N, C) and scores (N, K).

    extras: parts that only some records have, JSON: `ask` (what a worker is to do), `policy`,
    `subjects` (keyed names, one a row), which commits to whom the record is filed under.
    """

    instances: bytes
    provenance: bytes
    fingerprint: str
    fed: Sequence[Sequence[float]]
    outputs: FloatArray
    scores: FloatArray
    extras: Mapping[str, bytes] = MappingProxyType({})


def encode_answer(model: bytes, request_id: str, fragments: Fragments) -> tuple[bytes, Parts]:
    """The body of POST /predict, and where in a payload that begins with it the pieces lie that
    are served again later. model: the version's name, number and digest, encoded.
    """
    pieces = (
        b'{"schema_version":"1","request_id":"%s","model":' % request_id.encode(),
        model,
        b',"predictions":',
        fragments.predictions,
        b',"warnings":',
        fragments.warnings,
        b',"explanation":',
        fragments.explanation,
        b"}",
    )
    return laid_out(pieces, ANSWER_PARTS, start=len(PAYLOAD_HEAD))


def encode_payload(answer: bytes, ranges: Parts, facts: Facts) -> tuple[bytes, Parts]:
    """The record's payload around the answer's own bytes, and the ranges of its parts."""
    pieces = {
        "instances": facts.instances,
        "provenance": facts.provenance,
        "fed": orjson.dumps(facts.fed),
        "outputs": orjson.dumps(facts.outputs, option=NUMPY),
        "scores": orjson.dumps(facts.scores, option=NUMPY),
        "fingerprint": b'"%s"' % facts.fingerprint.encode(),
    }
    return join_payload(answer, ranges, {**pieces, **facts.extras})


def join_payload(answer: bytes, ranges: Parts, pieces: Mapping[str, bytes]) -> tuple[bytes, Parts]:
    """The payload whose pieces are encoded, in their order; all that workers read are needed."""
    laid = [PAYLOAD_HEAD, answer]
    for name, piece in pieces.items():
        laid += (_before(name), piece)
    payload, parts = laid_out([*laid, b"}"], ["answer", *pieces])
    return payload, {**parts, **ranges}


@lru_cache(maxsize=64)
def _before(name: str) -> bytes:
    return b',"%s":' % name.encode()


def encode_ask(
    top: int,
    priority: Priority,
    answer_by: datetime | None,
    *,
    method: str | None = None,
    is_counted: bool = True,
    trace_id: str | None = None,
) -> bytes:
    """What must be known of a queued explanation beside the record's other parts.

    is_counted False: that it is wanted is counted with its end, as nobody scrapes who asked.
    """
    ask = {
        "top": top,
        "method": method,
        "priority": priority,
        "answer_by": answer_by,
        "is_counted": is_counted,
        "trace_id": trace_id,
    }
    return orjson.dumps(ask, option=orjson.OPT_UTC_Z)


def encode_provenance(  # noqa: PLR0913 (what an auditor asks: who, when, where, from which seed)
    templates: AnswerTemplates,
    *,
    lane: Lane | None,
    received_at: datetime,
    completed_at: datetime,
    principal: str,
    seeds: Sequence[int] | None = None,
    taken: Taken | None = None,
    cpu_seconds: float | None = None,
) -> bytes:
    """The version's constants with this request's lane, times, principal, seeds and worker, and
    the CPU time of its explanation, None as long as there is none.
    """
    own = {
        **(NOBODY if taken is None else asdict(taken)),
        "cpu_seconds": cpu_seconds and round(cpu_seconds, 7),
        "seed": seeds,
        "lane": lane,
        "received_at": received_at,
        "completed_at": completed_at,
        "principal": principal,
    }
    return templates.provenance + b"," + orjson.dumps(own, option=orjson.OPT_UTC_Z)[1:]


def encode_warnings(warnings: Sequence[Mapping[str, str]]) -> bytes:
    """Warnings as the contract lists them; usually none."""
    return orjson.dumps(warnings) if warnings else b"[]"
