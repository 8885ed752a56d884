"""The bytes of answers and records: encoded once, then stored, hashed and served as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

import numpy as np
import orjson

from explainers.base import FloatArray, Level
from service.evidence import Parts, payload_of
from service.explaining import ExplainedPart
from service.models.base import Served
from service.registry import RegisteredModel
from service.registry.card import CAVEAT
from service.registry.libraries import installed_libraries, service_version
from service.registry.naming import class_text

Range = tuple[int, int]
NUMPY = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class AnswerTemplates:
    """Everything in an answer that is the same for all requests to one model version."""

    model: bytes
    provenance: bytes
    explanation_head: bytes
    explanation_tail: bytes
    class_keys: tuple[str, ...] | None
    classes: tuple[Level, ...] | None
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @classmethod
    def of(cls, model: RegisteredModel) -> Self:
        """Encode the constants of a version."""
        manifest = model.manifest
        explainer = manifest.explainer
        head = orjson.dumps(
            {
                "lane": "inline",
                "method": explainer.method,
                "engine": model.engine,
                "exact": True,
                **_spaces(model),
            }
        )
        tail = orjson.dumps({"background_digest": model.background.digest, "seed": None})
        return cls(
            model=orjson.dumps(
                {"name": manifest.name, "version": manifest.version, "digest": model.digest}
            ),
            provenance=orjson.dumps(provenance_of(model))[:-1],
            explanation_head=b'{"status":"complete","reason":null,' + head[1:-1] + b',"values":',
            explanation_tail=b"," + tail[1:-1],
            class_keys=None
            if manifest.classes is None
            else tuple(map(class_text, manifest.classes)),
            classes=manifest.classes,
            feature_names=model.schema.names,
            output_names=explainer.output_names,
        )


def _spaces(model: RegisteredModel) -> dict[str, object]:
    explainer = model.manifest.explainer
    return {
        "output_space": explainer.output_space,
        "link": explainer.link,
        "output_names": explainer.output_names,
        "feature_names": model.schema.names,
    }


def provenance_of(model: RegisteredModel) -> dict[str, object]:
    """Digests and versions an auditor needs to find this model, schema and background again."""
    manifest = model.manifest
    return {
        "model_digest": model.digest,
        "artifact_digest": manifest.artifact.digest,
        "schema_digest": manifest.schema_digest,
        "background_digest": manifest.background.digest,
        "explainer_config_digest": manifest.explainer.config_digest,
        "library_versions": installed_libraries(),
        "service_version": service_version(),
        "worker": None,
    }


def encode_predictions(templates: AnswerTemplates, scores: FloatArray) -> bytes:
    """(N, K) scores as the contract's list of predictions."""
    if templates.classes is None or templates.class_keys is None:
        return orjson.dumps([{"value": value} for value in scores[:, 0].tolist()])
    keys, classes = templates.class_keys, templates.classes
    return orjson.dumps(
        [
            {
                "label": classes[row.index(max(row))],
                "probabilities": dict(zip(keys, row, strict=True)),
            }
            for row in scores.tolist()
        ]
    )


def encode_explanation(
    templates: AnswerTemplates,
    part: ExplainedPart,
    instances: Sequence[Sequence[Level | None]],
    *,
    top: int,
    request_id: str,
) -> bytes:
    """The complete explanation of one request: its rows of a batch."""
    explanation = part.explanation
    assert explanation is not None
    assert explanation.outputs is not None
    values = explanation.values[part.rows]
    return b"".join(
        (
            templates.explanation_head,
            orjson.dumps(values, option=NUMPY),
            b',"base_values":',
            orjson.dumps(explanation.base_values[part.rows], option=NUMPY),
            b',"outputs":',
            orjson.dumps(explanation.outputs[part.rows], option=NUMPY),
            b',"standard_errors":null,"additivity_error":',
            orjson.dumps(part.additivity, option=NUMPY),
            b',"top":',
            orjson.dumps(strongest(templates, values, instances, top)),
            templates.explanation_tail,
            b',"model_evaluations":%d,"duration_seconds":' % explanation.model_evaluations,
            orjson.dumps(round(part.duration_seconds, 7)),
            b',"caveat":"' + CAVEAT.encode() + b'","links":{"self":"/explanations/',
            request_id.encode() + b'"}}',
        )
    )


def strongest(
    templates: AnswerTemplates,
    values: FloatArray,
    instances: Sequence[Sequence[Level | None]],
    top: int,
) -> list[list[dict[str, object]]]:
    """Per instance the K entries of largest |contribution| over all outputs; ties in order."""
    flat = values.reshape(len(values), -1)
    order = np.argsort(-np.abs(flat), axis=1, kind="stable")[:, :top].tolist()
    names, outputs = templates.feature_names, templates.output_names
    width = len(outputs)
    return [
        [
            {
                "feature": names[entry // width],
                "value": instance[entry // width],
                "contribution": contributions[entry],
                "output": outputs[entry % width],
            }
            for entry in entries
        ]
        for entries, instance, contributions in zip(order, instances, flat.tolist(), strict=True)
    ]


def encode_unexplained(
    model: RegisteredModel,
    status: Literal["failed", "skipped"],
    reason: str,
    *,
    lane: str | None,
    request_id: str,
) -> bytes:
    """An explanation that is not there, with the reason; every array is null."""
    return orjson.dumps(
        {
            "status": status,
            "reason": reason,
            "lane": lane,
            "method": model.manifest.explainer.method,
            "engine": None,
            "exact": None,
            **_spaces(model),
            "values": None,
            "base_values": None,
            "outputs": None,
            "standard_errors": None,
            "additivity_error": None,
            "top": None,
            "background_digest": model.background.digest,
            "seed": None,
            "model_evaluations": 0,
            "duration_seconds": None,
            "caveat": CAVEAT,
            "links": {"self": f"/explanations/{request_id}"},
        }
    )


@dataclass(frozen=True, slots=True)
class Fragments:
    """The encoded pieces of one request."""

    predictions: bytes
    explanation: bytes
    warnings: bytes
    instances: bytes


def encode_answer(
    templates: AnswerTemplates, request_id: str, fragments: Fragments
) -> tuple[bytes, dict[str, Range]]:
    """The body of POST /predict, and where in it the pieces lie that are served again later."""
    head = b'{"schema_version":"1","request_id":"%s","model":' % request_id.encode()
    ranges: dict[str, Range] = {}
    body = bytearray(head)
    for name, before, piece in (
        ("model", b"", templates.model),
        ("predictions", b',"predictions":', fragments.predictions),
        ("warnings", b',"warnings":', fragments.warnings),
        ("explanation", b',"explanation":', fragments.explanation),
    ):
        body += before
        ranges[name] = (len(body), len(body) + len(piece))
        body += piece
    body += b"}"
    return bytes(body), ranges


@dataclass(frozen=True, slots=True)
class Facts:
    """What only the record says of a request."""

    provenance: bytes
    fingerprint: str
    fed: Sequence[Sequence[float]]
    served: Served


def encode_payload(
    answer: bytes, ranges: Mapping[str, Range], fragments: Fragments, facts: Facts
) -> tuple[bytes, Parts]:
    """The record's payload around the answer's own bytes, and the ranges of its parts."""
    payload, parts = payload_of(
        [
            ("answer", answer),
            ("instances", fragments.instances),
            ("provenance", facts.provenance),
            ("fed", orjson.dumps(facts.fed)),
            ("outputs", orjson.dumps(facts.served.outputs, option=NUMPY)),
            ("scores", orjson.dumps(facts.served.scores, option=NUMPY)),
            ("fingerprint", b'"%s"' % facts.fingerprint.encode()),
        ]
    )
    start = parts["answer"][0]
    nested = {name: (start + first, start + last) for name, (first, last) in ranges.items()}
    return payload, {**parts, **nested}


def encode_provenance(
    templates: AnswerTemplates,
    *,
    lane: str | None,
    received_at: datetime,
    completed_at: datetime,
    principal: str,
) -> bytes:
    """The version's constants with this request's lane, times and principal."""
    own = {
        "seed": None,
        "lane": lane,
        "received_at": received_at,
        "completed_at": completed_at,
        "principal": principal,
    }
    return templates.provenance + b"," + orjson.dumps(own, option=orjson.OPT_UTC_Z)[1:]


def encode_warnings(warnings: Sequence[Mapping[str, str]]) -> bytes:
    """Warnings as the contract lists them; usually none."""
    return orjson.dumps(warnings) if warnings else b"[]"
