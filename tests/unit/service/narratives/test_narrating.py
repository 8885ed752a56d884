"""What is told of a record: every numeral is the record's, and the words fit each state of it."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from made_records import Document, binary, explanation, record, records
from narrated import assert_every_number_is_the_records, quoted_in, strings_in, texts

from service.masking import NO_REASONS
from service.narratives import AUDIENCES, narrate

ITEMS = [
    {"code": "R01", "text": "Under 2 years in work", "features": ["status"], "contribution": 1.25},
    {"code": "R02", "text": "Age", "features": ["age", "x 3"], "contribution": 0.125},
]
GIVEN = {
    "decision": "decline",
    "status": "given",
    "reason": None,
    "items": ITEMS,
    "cohort_digest": "sha256:1",
}
WITHHELD = {**GIVEN, "status": "withheld", "reason": "check 7 failed", "items": []}


def told(made: Document, audience: Any) -> str:
    """The text, after every number of it was found in the record."""
    narrative = narrate(made, audience).to_json()
    assert_every_number_is_the_records(narrative, made)
    return texts(narrative)


@pytest.mark.parametrize("audience", AUDIENCES)
@settings(max_examples=150, deadline=None)
@given(made=records())
def test_whatever_columns_and_classes_are_called_every_numeral_is_the_records(
    audience: Any, made: Document
) -> None:
    before = copy.deepcopy(made)
    narrative = narrate(made, audience).to_json()
    assert made == before
    assert_every_number_is_the_records(narrative, made)
    assert quoted_in(narrative["paragraphs"]) <= strings_in(made)
    assert narrative == narrate(made, audience).to_json()
    assert "not causes" in narrative["caveat"]


def test_the_check_of_these_tests_sees_a_number_that_is_not_the_records() -> None:
    made = binary()
    for text, forged in (("71.1 %", "71.2 %"), ("22", "23"), ("22", "22 and 5")):
        narrative = narrate(made, "applicant").to_json()
        narrative["paragraphs"] = [part.replace(text, forged) for part in narrative["paragraphs"]]
        narrative["numbers"] = [
            (forged if shown == text else shown, at) for shown, at in narrative["numbers"]
        ]
        with pytest.raises((AssertionError, ArithmeticError)):
            assert_every_number_is_the_records(narrative, made)


def test_an_applicant_is_told_outcome_what_counted_what_was_looked_at_and_what_was_not_given() -> (
    None
):
    assert told(binary(), "applicant").splitlines() == [
        'The outcome of this case is "decline". The model sees a chance of 71.1 % for "bad".',
        (
            'Only one thing counted towards "bad": "status" (given as "0DM"). '
            'Only one thing counted against "bad": "age" (given as 22).'
        ),
        (
            'The model looked at nothing but these: "status", "age" and "x 3". '
            '"x 3" made no difference here. Not given: "x 3".'
        ),
    ]


def test_an_agent_is_told_scores_threshold_and_contributions() -> None:
    assert told(binary(), "agent").splitlines()[1:] == [
        (
            'Answer: "bad". Scores: "good" 0.2891 and "bad" 0.7109. Decision: "decline", because '
            'the score of "bad", 0.7109, reaches the threshold 0.4.'
        ),
        (
            'Only one column counted towards "bad": "status" = "0DM" (+1.25). Only one column '
            'counted against "bad": "age" = 22 (-0.5). Contributions are in log-odds of "bad".'
        ),
    ]


def test_an_engineer_is_told_method_base_value_output_and_check() -> None:
    lines = told(binary(), "engineer").splitlines()
    assert lines[2].startswith('Method "tree_interventional", engine "table", exact, lane "inline"')
    assert lines[3] == (
        'Output "bad": base value 0.5, output 1.25, largest values "status" +1.25 and "age" -0.5. '
        "Additivity error: 1.5e-9 of the output's scale."
    )


def test_a_score_beside_its_threshold_is_told_in_full() -> None:
    made = binary()
    made["predictions"][0]["probabilities"] = {"good": 0.60001, "bad": 0.39999}
    made["predictions"][0]["decision"] = "accept"
    assert "0.39999, is below the threshold 0.4." in told(made, "agent")
    made["decision_rule"] = None
    assert 'Decision: "accept".' in told(made, "agent")


def test_reasons_are_told_in_their_own_words_and_to_agents_with_their_codes() -> None:
    made = binary(reasons=[GIVEN])
    main = 'The main reasons for "decline" are: "Under 2 years in work" and "Age".'
    assert main in told(made, "applicant")
    assert (
        'Reasons for "decline": "R01" "Under 2 years in work" ("status", +1.25) and '
        '"R02" "Age" ("age" and "x 3", +0.125).'
    ) in told(made, "agent")
    one = binary(reasons=[{**GIVEN, "items": ITEMS[:1]}])
    assert 'The reason for "decline" is: "Under 2 years in work".' in told(one, "applicant")
    assert 'Reason for "decline": "R01"' in told(one, "agent")


def test_withheld_reasons_are_said_to_be_and_why_is_for_agents() -> None:
    made = binary(reasons=[WITHHELD])
    assert "No reasons are given" in told(made, "applicant")
    assert "check 7" not in told(made, "applicant")
    assert 'Reasons for "decline" are withheld: "check 7 failed".' in told(made, "agent")
    assert "eason" not in told(binary(reasons=[None]), "applicant")


@pytest.mark.parametrize("audience", ["applicant", "agent"])
def test_a_masked_role_is_told_neither_of_reasons_nor_of_their_absence(audience: Any) -> None:
    text = told(binary(reasons=[dict(NO_REASONS)]), audience)
    assert "Whether there are reasons may not be shown here." in text
    assert "None" not in text


@pytest.mark.parametrize("audience", ["applicant", "agent"])
def test_what_an_estimate_does_not_tell_from_zero_is_left_out(audience: Any) -> None:
    errors = [[[0.5], [0.3], [0.1]]]
    made = binary(standard_errors=errors, exact=False, seed=[2**63 - 1], method="permutation")
    text = told(made, audience)
    assert '"status"' in text
    assert 'Nothing counted against "bad".' in text
    assert "estimates" in text
    assert "Seed: 9223372036854775807." in told(made, "engineer")
    assert "(standard error 0.5)" in told(made, "engineer")


@pytest.mark.parametrize("audience", AUDIENCES)
@pytest.mark.parametrize("status", ["pending", "failed", "skipped", None])
def test_without_values_the_answer_is_told_and_why_there_are_none(
    audience: Any, status: str | None
) -> None:
    nothing = dict.fromkeys(
        ("values", "base_values", "outputs", "additivity_error", "engine", "exact"), None
    )
    made = binary(**nothing, status=status, reason="budget of 5 spent", duration_seconds=None)
    if status is None:
        made["explanation"] = None
    text = told(made, audience)
    assert "expla" in text.splitlines()[-1]
    assert ("budget of 5 spent" in text) == (audience != "applicant" and status is not None)
    if audience != "engineer":
        assert '"decline"' in text


@pytest.mark.parametrize("audience", AUDIENCES)
def test_an_erased_case_is_said_to_be_erased_and_the_others_are_told(audience: Any) -> None:
    made = explained_rows(3)
    made["predictions"][1] = made["instances"][1] = None
    made["explanation"]["values"][1] = None
    lines = told(made, audience).splitlines()
    assert "Case 2. What was recorded about this case has been erased." in lines
    assert sum(line.startswith(("Case 1.", "Case 3.")) for line in lines) == 2


def explained_rows(n_rows: int) -> Document:
    rows = [[[0.5 + index], [-1.0]] for index in range(n_rows)]
    explained = explanation(["a", "b"], ["value"], rows, output_space="raw", link="identity")
    cells = [{"a": index, "b": "x"} for index in range(n_rows)]
    return record(cells, [{"value": 1.5}] * n_rows, explained)


@pytest.mark.parametrize("audience", AUDIENCES)
def test_of_very_many_cases_the_first_twenty_are_told(audience: Any) -> None:
    text = told(explained_rows(25), audience)
    assert "Case 20." in text
    assert "Case 21." not in text
    assert text.endswith("The record has more cases, which are not told here.")


def test_a_regressions_value_is_raised_and_lowered() -> None:
    lines = told(explained_rows(1), "applicant").splitlines()
    assert lines[0] == "The model's answer is 1.5."
    assert lines[1] == (
        'Only one thing counted to raise the value: "a" (given as 0). '
        'Only one thing counted to lower the value: "b" (given as "x").'
    )


def test_the_class_that_is_not_explained_is_argued_from_the_other_side() -> None:
    made = binary()
    made["predictions"] = [{"label": "good", "probabilities": {"good": 0.75, "bad": 0.25}}]
    assert 'counted towards "good": "age" (given as 22)' in told(made, "applicant")
    assert 'counted against "good": "status"' in told(made, "applicant")
    turned = 'in log-odds of "bad", so negative ones speak for "good".'
    assert turned in told(made, "agent")


def test_a_multiclass_answer_is_argued_by_its_own_output() -> None:
    values = [[[1.0, -2.0, 0.5], [0.25, 3.0, 0.0]]]
    explained = explanation(["a", "b"], ["x", "y", "z"], values)
    prediction = {"label": "y", "probabilities": {"x": 0.2, "y": 0.7, "z": 0.1}}
    made = record([{"a": 1, "b": 2}], [prediction], explained)
    text = told(made, "agent")
    assert 'towards "y": "b" = 2 (+3)' in text
    assert 'against "y": "a" = 1 (-2)' in text
    assert 'scores before the softmax of "y"' in text
    assert told(made, "engineer").count("Output ") == 4  # three, and the output space


@pytest.mark.parametrize("audience", AUDIENCES)
def test_a_method_without_shapley_values_is_not_put_into_their_words(audience: Any) -> None:
    arrays = ("values", "base_values", "outputs", "additivity_error")
    made = binary(**dict.fromkeys(arrays, None), method="lime", engine=None, exact=None)
    text = told(made, audience)
    assert "counted towards" not in text
    assert "+1.25" not in text


def test_more_columns_than_anybody_reads_are_not_listed() -> None:
    names = [f"column {index}" for index in range(41)]
    values = [[[float(index)] for index in range(41)]]
    made = record(
        [dict.fromkeys(names, 1)], [{"value": 2.0}], explanation(names, ["value"], values)
    )
    text = told(made, "applicant")
    assert "Only what was given for this case was looked at, and nothing else." in text
    assert '"column 7"' not in text
