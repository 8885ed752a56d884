"""Reasons by policy: what the table must say, and what follows from contributions."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from credit_reasons import PAGE, documented_policy
from policies import CLASSIFIER, REGRESSION, ROW, SCHEMA, policy

from schemas.reasons import DecisionReasons
from service.errors import InvalidInputError
from service.policy import Reasons, ReasonsRule, Vocabulary
from service.policy.document import Document

DECISION = """
[models.loans.decision]
name = "decline"
otherwise = "accept"
class = "bad"
at_least = 0.4
"""
TABLE = """
[models.loans.reasons]
adverse = "decline"
[models.loans.reasons.codes]
"""
CODES = {name: (f"R{place}", f"about {name}") for place, name in enumerate(SCHEMA.names)}
THREE = Vocabulary(SCHEMA, ("good", "bad", "awful"), ("good", "bad", "awful"))


def text(*, decision: str = DECISION, table: str = TABLE, **codes: tuple[str, str] | None) -> str:
    """A policy whose mapping is complete but for these columns."""
    lines = [
        f'"{name}" = {{ code = "{coded[0]}", text = "{coded[1]}" }}'
        for name, coded in (CODES | codes).items()
        if coded is not None
    ]
    return decision + table + "\n".join(lines)


def rule(folder: Path, content: str, vocabulary: Vocabulary = CLASSIFIER) -> ReasonsRule:
    found = policy(folder, content, vocabulary=vocabulary).reasons
    assert found is not None
    return found


def given(found: ReasonsRule, *contributions: float) -> Any:
    (entry,) = Reasons(found, [found.adverse]).given(SCHEMA.names, {0: contributions})
    return entry


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (text(rating=None), "codes: the column 'rating' has no code"),
        (text(ratng=("R9", "x")), "codes: there is no column 'ratng'; did you mean 'rating'"),
        (text(rating=("R1", "another")), "models.loans.reasons.codes: the code 'R1' has two texts"),
        (text(rating=("R4", "")), "models.loans.reasons.codes.rating.text: a reason needs a text"),
        (text(rating=("R4", "  ")), "a reason needs a text"),
        (text(rating=("", "x")), "models.loans.reasons.codes.rating.code: "),
        (
            text(**dict.fromkeys(SCHEMA.names[:5], ("R0", "many things"))),
            "codes: 'R0' stands for 5 of 8 columns; a code for more than half of them",
        ),
        (text(decision=""), "models.loans: reasons are of an adverse decision: give"),
        (
            text(table=TABLE.replace("decline", "denied")),
            "models.loans: reasons.adverse: 'denied' is not 'decline' nor 'accept'",
        ),
        (text(decision=DECISION.replace("accept", "decline")), "models.loans.decision: name and"),
        (text(table=TABLE.replace("[models.loans.reasons.c", "most = 0\n[models.loans.reasons.c")),
         "models.loans.reasons.most: "),
        (
            text(table=TABLE.replace("[models.loans.reasons.c",
                                     "most = 11\n[models.loans.reasons.c")),
            "models.loans.reasons.most: ",
        ),
        (
            text(table='[models.loans.reasons]\nadverse = "decline"\n'
                 'cohort = { file = "a.csv", sha256 = "12" }\n[models.loans.reasons.codes]\n'),
            "models.loans.reasons.cohort.sha256: ",
        ),
        ("[default.reasons]\nadverse = 'decline'", "default.reasons: "),
    ],
    ids=[
        *("no code", "no column", "two texts", "no text", "blank text", "empty code"),
        *("catch-all", "no decision", "no such name", "one name twice", "none at most"),
        *("too many", "no digest", "default section"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_with_its_place(
    tmp_path: Path, content: str, complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(complaint)):
        policy(tmp_path, content)


def test_half_of_the_columns_may_share_a_code(tmp_path: Path) -> None:
    found = rule(tmp_path, text(**dict.fromkeys(SCHEMA.names[:4], ("R0", "four things"))))
    assert found.most == 4
    assert [found.codes[name].code for name in SCHEMA.names[:5]] == ["R0"] * 4 + ["R4"]


@pytest.mark.parametrize(
    ("vocabulary", "label", "adverse", "output", "sign"),
    [
        (CLASSIFIER, "bad", "decline", "bad", 1),
        (CLASSIFIER, "bad", "accept", "bad", -1),
        (CLASSIFIER, "good", "decline", "bad", -1),
        (CLASSIFIER, "good", "accept", "bad", 1),
        (THREE, "good", "decline", "good", 1),
        (THREE, "awful", "accept", "awful", -1),
        (REGRESSION, None, "decline", "value", 1),
        (REGRESSION, None, "accept", "value", -1),
    ],
)
def test_the_direction_follows_from_the_decision(
    tmp_path: Path,
    vocabulary: Vocabulary,
    label: str | None,
    adverse: str,
    output: str,
    sign: int,
) -> None:
    line = "" if label is None else f'class = "{label}"\n'
    decision = DECISION.replace('class = "bad"\n', line)
    table = TABLE.replace('"decline"', f'"{adverse}"')
    found = rule(tmp_path, text(decision=decision, table=table), vocabulary)
    assert (found.output, found.sign) == (output, sign)


def test_reasons_are_sums_by_code_strongest_first_and_at_most_so_many(tmp_path: Path) -> None:
    shared = ("R0", "amount and rating")
    found = rule(tmp_path, text(amount=shared, rating=shared))
    # amount, duration, status, branch, rating, is_owner, credit amount, value
    entry = given(found, 0.5, 0.25, -1.0, 0.125, -0.0625, 0.0, 0.75, 0.03125)
    assert entry["status"] == "given"
    assert [(item["code"], item["contribution"]) for item in entry["items"]] == [
        ("R6", 0.75),
        ("R0", 0.4375),
        ("R1", 0.25),
        ("R3", 0.125),
    ]
    assert entry["items"][1]["features"] == ["amount"]  # rating speaks against it
    assert entry["items"][1]["text"] == "amount and rating"


def test_equal_ones_stand_in_the_order_of_the_columns(tmp_path: Path) -> None:
    table = TABLE.replace('"decline"', '"accept"\nmost = 3')
    entry = given(rule(tmp_path, text(table=table)), *[-0.5] * 8)
    assert [item["code"] for item in entry["items"]] == ["R0", "R1", "R2"]
    assert {item["contribution"] for item in entry["items"]} == {0.5}


def test_without_a_positive_sum_they_are_withheld(tmp_path: Path) -> None:
    shared = ("R0", "amount and rating")
    found = rule(tmp_path, text(amount=shared, rating=shared))
    entry = given(found, 0.5, 0.0, -1.0, 0.0, -0.5, 0.0, 0.0, 0.0)
    assert (entry["status"], entry["items"]) == ("withheld", [])
    assert "no column" in entry["reason"]


def test_the_rule_comes_back_from_its_record(tmp_path: Path) -> None:
    found = policy(tmp_path, text())
    assert found.reasons is not None
    for bad, is_full in ((0.9, True), (0.1, False)):
        decision = found.decide("t", "request-1", [ROW], np.array([[1 - bad, bad]]), asked=False)
        said = orjson.loads(orjson.dumps(decision.to_json()))
        reasons = Reasons.of_policy(said)
        assert reasons is not None
        assert reasons.adverse == ([0] if is_full else [])
        assert reasons.rule.to_json(in_full=is_full) == found.reasons.to_json(in_full=is_full)
    assert Reasons.of_policy(said | {"reasons": None}) is None  # erased


def test_without_the_table_the_record_says_what_it_said(tmp_path: Path) -> None:
    found = policy(tmp_path, DECISION)
    said = found.decide("t", "request-1", [ROW], np.array([[0.1, 0.9]]), asked=True).to_json()
    assert "reasons" not in said


def test_the_documented_answer_is_one_by_the_documented_policy() -> None:
    """What it says of contributions is made up; codes, texts and columns are the policy's."""
    table = Document.model_validate(tomllib.loads(documented_policy())).models["german_credit"]
    assert table.reasons is not None
    shown = PAGE.read_text().partition("<!-- example: answer -->\n```json\n")[2].partition("```")[0]
    (entry,) = orjson.loads(shown)["explanation"]["reasons"]
    told = DecisionReasons.model_validate(entry)
    assert told.decision == table.reasons.adverse
    for item in told.items:
        for name in item.features:
            coded = table.reasons.codes[name]
            assert (coded.code, coded.text) == (item.code, item.text)
