import copy
import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from schemas.messages import Answer, ModelInfo, ModelList, Record, RecordPage

EXPLANATION: dict[str, Any] = {
    "status": "complete",
    "reason": None,
    "lane": "inline",
    "method": "tree_interventional",
    "engine": "table",
    "exact": True,
    "output_space": "log_odds",
    "link": "logit",
    "output_names": ["bad"],
    "feature_names": ["status", "duration_months"],
    "values": [[[1.2], [0.54]]],
    "base_values": [[-0.84]],
    "outputs": [[0.9]],
    "standard_errors": None,
    "additivity_error": [2e-9],
    "top": [[{"feature": "status", "value": "0DM", "contribution": 1.2, "output": "bad"}]],
    "background_digest": "sha256:00",
    "seed": None,
    "model_evaluations": 0,
    "duration_seconds": 0.00012,
    "caveat": "Attributions describe this model's behaviour against the background.",
    "links": {"self": "/explanations/019aa0c2"},
}
UNCOMPUTED = dict.fromkeys(
    ["values", "base_values", "outputs", "additivity_error", "top", "engine", "exact"]
)
MODEL = {"name": "german_credit", "version": 3, "digest": "sha256:00"}
PREDICTION = {"label": "bad", "probabilities": {"good": 0.2891, "bad": 0.7109}}
ANSWER: dict[str, Any] = {
    "schema_version": "1",
    "request_id": "019aa0c2",
    "model": MODEL,
    "predictions": [PREDICTION],
    "warnings": [{"pointer": "/instances/0/age", "code": "out_of_training_range"}],
    "explanation": EXPLANATION,
}
RECORD: dict[str, Any] = {
    "request_id": "019aa0c2",
    "received_at": "2026-01-02T03:04:05.678Z",
    "model": MODEL,
    "instances": [{"status": "0DM", "duration_months": None}],
    "predictions": [PREDICTION],
    "explanation": EXPLANATION,
    "provenance": {
        "model_digest": "sha256:00",
        "schema_digest": "sha256:01",
        "background_digest": "sha256:02",
        "explainer_config_digest": None,
        "library_versions": {"xgboost": "3.2.0"},
        "service_version": "0.1.0",
        "artifact_digest": "sha256:" + "a" * 64,
        "seed": None,
        "lane": "inline",
        "worker": None,
        "received_at": "2026-01-02T03:04:05.678Z",
        "completed_at": "2026-01-02T03:04:05.680Z",
        "principal": "local",
    },
}
PAGE: dict[str, Any] = {
    "items": [
        {
            "request_id": "019aa0c2",
            "received_at": "2026-01-02T03:04:05Z",
            "model": MODEL,
            "status": "complete",
            "lane": "inline",
        }
    ],
    "next_cursor": None,
}
INFO: dict[str, Any] = {
    "name": "german_credit",
    "serving_version": 3,
    "versions": [1, 2, 3],
    "task": "binary",
    "json_schema": {"type": "object"},
    "output_space": "log_odds",
    "method": "tree_interventional",
    "cost_seconds_per_instance": 0.0001,
    "sample_request": {"instances": [{"status": "0DM", "age": 30}]},
}


def read(model: type[BaseModel], document: object) -> BaseModel:
    return model.model_validate_json(json.dumps(document))


def with_explanation(**change: object) -> dict[str, Any]:
    return ANSWER | {"explanation": EXPLANATION | change}


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (Answer, ANSWER),
        (Record, RECORD),
        (RecordPage, PAGE),
        (ModelInfo, INFO),
        (ModelList, {"items": [INFO]}),
    ],
)
def test_documents_are_read_and_nothing_may_be_added_or_left_out(
    model: type[BaseModel], document: dict[str, Any]
) -> None:
    read(model, document)
    with pytest.raises(ValidationError):
        read(model, document | {"extra": 1})
    for name in document:
        with pytest.raises(ValidationError):
            read(model, {key: value for key, value in document.items() if key != name})


@pytest.mark.parametrize(
    "prediction",
    [
        {"value": 123.4},
        {"value": 1.0, "decision": "refer"},
        {"label": 1, "probabilities": {"0": 0.5, "1": 0.5}},
        {"label": True, "probabilities": {"false": 0.0, "true": 1.0}},
        PREDICTION | {"decision": "good"},
    ],
)
def test_labels_keep_their_json_type(prediction: dict[str, object]) -> None:
    answer = read(Answer, ANSWER | {"predictions": [prediction], "explanation": None})
    written = answer.model_dump(mode="json", exclude_unset=True)["predictions"][0]
    assert json.dumps(written) == json.dumps(prediction)


@pytest.mark.parametrize("status", ["pending", "failed", "skipped"])
def test_an_explanation_that_is_not_complete_has_null_arrays(status: str) -> None:
    reason = None if status == "pending" else "budget_exceeded"
    read(Answer, with_explanation(status=status, reason=reason, **UNCOMPUTED))
    for name in UNCOMPUTED:
        kept = UNCOMPUTED | {name: EXPLANATION[name]}
        with pytest.raises(ValidationError, match="until complete"):
            read(Answer, with_explanation(status=status, reason=reason, **kept))


def test_a_sampled_explanation_has_seeds_and_standard_errors() -> None:
    sampled = {"method": "permutation", "engine": "sampler", "exact": False}
    errors = [[[0.1], [0.2]]]
    read(Answer, with_explanation(**sampled, seed=[7], standard_errors=errors))
    with pytest.raises(ValidationError, match="seed"):
        read(Answer, with_explanation(**sampled, standard_errors=errors))


@pytest.mark.parametrize(
    "change",
    [
        {"values": None},
        {"exact": None},
        {"seed": [7]},
        {"status": "failed"} | UNCOMPUTED,
        {"values": [[[1.2]]]},
        {"values": [[[1.2, 0.0], [0.54, 0.0]]]},
        {"values": [[[1.2], [0.54]]] * 2},
        {"standard_errors": [[[0.1]]]},
        {"base_values": [[-0.84, 0.0]]},
        {"base_values": [[-0.84]] * 2},
        {"outputs": [[]]},
        {"outputs": [[float("nan")]]},
        {"additivity_error": []},
        {"top": []},
        {"method": "magic"},
        {"links": {"other": "/"}},
    ],
)
def test_an_explanation_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        read(Answer, with_explanation(**change))


def test_times_without_a_zone_are_refused() -> None:
    document = copy.deepcopy(RECORD) | {"received_at": "2026-01-02T03:04:05"}
    with pytest.raises(ValidationError):
        read(Record, document)
