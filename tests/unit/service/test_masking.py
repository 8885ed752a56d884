"""What is left of documents for who may not see every column, and who that is."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from policies import CLASSIFIER, policy, policy_file

from schemas import Answer, Record
from service.errors import InvalidInputError
from service.masking import WITHHELD, masked_answer, masked_explanation, masked_record, masked_vote
from service.policy import hidden_by_file, hidden_columns

ROLES = """
[default.roles.support]
mask = ["amount", "not a column of loans"]

[default.roles.clerk]
mask = ["duration"]

[default.roles.everything]
mask = []

[models.loans.roles.support]
mask = ["status", "credit amount"]
"""
SECRET = 31.4159
EXPLANATION: dict[str, Any] = {
    "status": "complete",
    "reason": None,
    "lane": "inline",
    "method": "linear",
    "engine": "closed_form",
    "exact": True,
    "output_space": "log_odds",
    "link": "logit",
    "output_names": ["bad"],
    "feature_names": ["age", "a/b~c"],
    "values": [[[SECRET], [SECRET]]],
    "base_values": [[SECRET]],
    "outputs": [[SECRET]],
    "standard_errors": [[[SECRET], [SECRET]]],
    "additivity_error": [SECRET],
    "top": [[{"feature": "age", "value": SECRET, "contribution": SECRET, "output": "bad"}]],
    "background_digest": "sha256:1",
    "seed": None,
    "model_evaluations": 31,
    "duration_seconds": SECRET,
    "caveat": "no causes",
    "links": {"self": "/explanations/request-1"},
}
MODEL = {"name": "loans", "version": 1, "digest": "sha256:2"}
PREDICTION = {"label": "bad", "probabilities": {"good": SECRET, "bad": SECRET}, "decision": "no"}
ANSWER = {
    "schema_version": "1",
    "request_id": "request-1",
    "model": MODEL,
    "predictions": [PREDICTION],
    "warnings": [
        {"pointer": "/instances/0/age", "code": "out_of_training_range"},
        {"pointer": "/instances/0/a~1b~0c", "code": "out_of_training_range"},
    ],
    "explanation": EXPLANATION,
}
RECORD = {
    "request_id": "request-1",
    "received_at": "2026-01-01T00:00:00Z",
    "model": MODEL,
    "instances": [{"age": SECRET, "a/b~c": 2.0}],
    "predictions": [PREDICTION],
    "explanation": EXPLANATION,
    "provenance": {
        "model_digest": "sha256:2",
        "artifact_digest": "sha256:3",
        "schema_digest": "sha256:4",
        "background_digest": "sha256:1",
        "explainer_config_digest": None,
        "library_versions": {},
        "service_version": "1",
        "seed": [31],
        "lane": "inline",
        "worker": None,
        "received_at": "2026-01-01T00:00:00Z",
        "completed_at": "2026-01-01T00:00:00Z",
        "principal": "ann",
    },
}
VISIBLE = [[{"feature": "a/b~c", "rank": 1, "sign": -1, "output": "bad"}]]


def test_of_an_answer_the_label_and_ranks_stay() -> None:
    masked = orjson.loads(masked_answer(orjson.dumps(ANSWER), {"age"}, VISIBLE))
    assert b"31.4" not in orjson.dumps(masked)
    assert masked.keys() == ANSWER.keys()
    assert masked["predictions"] == [{"label": "bad", "probabilities": None, "decision": None}]
    assert [warning["pointer"] for warning in masked["warnings"]] == ["/instances/0/a~1b~0c"]
    explanation = masked["explanation"]
    assert explanation.keys() == EXPLANATION.keys() | {"visible"}
    assert explanation["visible"] == VISIBLE
    assert {name for name, value in explanation.items() if value is None} == {
        *("reason", "values", "base_values", "outputs", "standard_errors", "additivity_error"),
        *("top", "seed", "model_evaluations", "duration_seconds"),
    }
    Answer.model_validate_json(orjson.dumps(masked))


def test_reasons_are_withheld_of_every_instance_alike() -> None:
    items = [{"code": "R1", "text": "x", "features": ["a/b~c"], "contribution": SECRET}]
    entry = {"decision": "no", "status": "given", "reason": None, "items": items}
    reasons = [{**entry, "cohort_digest": "sha256:5"}, None]
    document = orjson.dumps(EXPLANATION | {"reasons": reasons})
    first, second = orjson.loads(masked_explanation(document, VISIBLE))["reasons"]
    assert first == second
    assert first == {
        **dict.fromkeys(("decision", "cohort_digest")),
        "status": "withheld",
        "reason": WITHHELD,
        "items": [],
    }
    pending = orjson.dumps(EXPLANATION | {"status": "pending", "reasons": None})
    assert orjson.loads(masked_explanation(pending, None))["reasons"] is None


def test_a_column_whose_name_needs_escaping_is_masked_too() -> None:
    masked = orjson.loads(masked_answer(orjson.dumps(ANSWER), {"a/b~c"}, None))
    assert [warning["pointer"] for warning in masked["warnings"]] == ["/instances/0/age"]
    masked = orjson.loads(masked_answer(orjson.dumps(ANSWER), None, None))
    assert masked["warnings"] == []


def test_of_a_record_the_masked_cells_go_and_the_others_stay() -> None:
    masked = orjson.loads(masked_record(orjson.dumps(RECORD), {"age"}, VISIBLE))
    assert b"31" not in orjson.dumps(masked)
    assert masked["instances"] == [{"age": None, "a/b~c": 2.0}]
    withheld = {"seed": None, "completed_at": None}  # how long it took tells of the values
    assert masked["provenance"] == {**RECORD["provenance"], **withheld}  # type: ignore[dict-item]
    Record.model_validate_json(orjson.dumps(masked))


def test_of_a_regression_only_the_decision_stays() -> None:
    answer = {**ANSWER, "predictions": [{"value": SECRET, "decision": "no"}, {"value": SECRET}]}
    masked = orjson.loads(masked_answer(orjson.dumps(answer), {"age"}, None))
    assert masked["predictions"] == [{"value": None, "decision": "no"}, {"value": None}]
    Answer.model_validate_json(orjson.dumps(masked))


@pytest.mark.parametrize("status", ["failed", "skipped", "pending"])
def test_reasons_may_tell_and_are_withheld(status: str) -> None:
    explanation = {**EXPLANATION, "status": status, "reason": "the rule 'minors' forbids it"}
    masked = orjson.loads(masked_explanation(orjson.dumps(explanation), VISIBLE))
    assert masked["reason"] == (None if status == "pending" else WITHHELD)
    assert masked["visible"] is None
    assert masked_explanation(b"null", None) == b"null"


def test_what_nobody_thought_about_is_withheld() -> None:
    grown: dict[str, Any] = {**RECORD, "reasons": ["age"]}
    grown["explanation"] = {**EXPLANATION, "interactions": {"values": [SECRET]}}
    grown["provenance"] = {**RECORD["provenance"], "digest_of_input": "1"}  # type: ignore[dict-item]
    grown["predictions"] = [{**PREDICTION, "score": SECRET}]
    masked = orjson.loads(masked_record(orjson.dumps(grown), {"age"}, None))
    assert masked["reasons"] is None
    assert masked["explanation"]["interactions"] is None
    assert masked["provenance"]["digest_of_input"] is None
    assert masked["predictions"][0]["score"] is None


def test_what_has_been_erased_stays_null() -> None:
    erased = {**RECORD, "instances": [None], "predictions": [None]}
    masked = orjson.loads(masked_record(orjson.dumps(erased), {"age"}, [None]))
    assert (masked["instances"], masked["predictions"]) == ([None], [None])


def test_a_role_masks_what_its_section_says_and_several_roles_add_up(tmp_path: Path) -> None:
    masks, columns = policy(tmp_path, ROLES).masks, CLASSIFIER.schema.names
    assert hidden_columns(masks, ("support",), columns) == {"status", "credit amount"}
    assert hidden_columns(masks, ("clerk",), columns) == {"duration"}
    assert hidden_columns(masks, ("support", "clerk"), columns) == {
        "status",
        "credit amount",
        "duration",
    }
    assert hidden_columns(masks, ("everything",), columns) == frozenset()


def test_who_has_a_role_nobody_knows_sees_no_column(tmp_path: Path) -> None:
    masks, columns = policy(tmp_path, ROLES).masks, CLASSIFIER.schema.names
    for roles in (("suport",), ("everything", "suport")):
        assert hidden_columns(masks, roles, columns) == frozenset(columns)
    assert hidden_columns({}, ("support",), columns) == frozenset(columns)


def test_a_mask_that_names_no_column_hides_all_where_nobody_could_check_it(tmp_path: Path) -> None:
    file, columns = policy_file(tmp_path, ROLES), ("amount", "status", "credit_amount")
    own = {"support": frozenset(file.section("loans").roles["support"].mask)}
    assert hidden_by_file(file.masks("loans"), own, ("support",), columns) == {*columns}
    assert hidden_by_file(file.masks("else"), {}, ("support",), columns) == {"amount"}


def test_a_mask_is_checked_against_its_model(tmp_path: Path) -> None:
    text = ROLES.replace("credit amount", "credit_amount")
    with pytest.raises(InvalidInputError, match=r"roles\.support\.mask.*did you mean 'credit am"):
        policy(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "[default.roles.support]",
        "[default.roles.support]\nmask = 'age'",
        "[default.roles.support]\nmask = [1]",
        "[default.roles.support]\nmask = ['']",
        "[default.roles.support]\nmask = ['age']\nshow = ['sex']",
        "[default.roles]\nsupport = ['age']",
    ],
)
def test_a_role_that_is_not_written_right_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"default\.roles"):
        policy_file(tmp_path, text)


def test_of_a_vote_comments_go_and_the_numbers_of_a_regression() -> None:
    rated = {"rating": 2, "comment": f"age {SECRET}?", "principal": "ann"}
    assert masked_vote(rated, is_regression=False) == {**rated, "comment": None}
    labelled = {"labels": [SECRET, None], "principal": "ann"}
    assert masked_vote(labelled, is_regression=True)["labels"] == [None, None]
    assert masked_vote(labelled, is_regression=False) == labelled
    assert masked_vote({"rating": 2}, is_regression=True) == {"rating": 2}
