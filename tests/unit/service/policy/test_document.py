"""The policy file: what it may say, and how it is told what is wrong."""

from pathlib import Path

import numpy as np
import pytest
from policies import KEY, REGRESSION, policy, policy_file

from schemas import ModelSchema
from service.errors import InvalidInputError, UnavailableError
from service.policy import PolicyFile, Vocabulary, bind

RULES = """
[default]
review = 20
[[default.rules]]
rate = 0.05

[models.loans]
[[models.loans.rules]]
name = "adverse"
prediction = { class = "bad", at_least = 0.5 }
explain = "always"
[[models.loans.rules]]
when = 'amount > 5000'
explain = "never"
"""


def test_the_version_is_of_the_content_not_of_the_spelling(tmp_path: Path) -> None:
    version = policy_file(tmp_path, RULES).version
    assert version.startswith("sha256:")
    assert policy_file(tmp_path, "# a comment\n" + RULES + "\n\n").version == version
    assert policy_file(tmp_path, RULES.replace("5000", "5001")).version != version


def test_an_empty_file_is_a_policy_without_rules(tmp_path: Path) -> None:
    empty = policy(tmp_path, "")
    assert empty.rules == ()
    assert empty.review_size == 100


def test_a_model_without_rules_of_its_own_has_the_default_ones(tmp_path: Path) -> None:
    text = "[default]\nreview = 3\nrules = [{ rate = 0.5 }]\n[models.loans]\nreview = 7\n"
    found = policy(tmp_path, text)
    assert [rule.probability for rule in found.rules] == [0.5]
    assert found.review_size == 7
    none = policy(tmp_path, text + "rules = []\n")
    assert none.rules == ()
    assert policy(tmp_path, "[default]\nreview = 3").review_size == 3


@pytest.mark.parametrize(
    ("text", "is_best_effort"),
    [
        ("", False),
        ("[default]\nevidence = 'best_effort'", True),
        ("[models.loans]\nevidence = 'best_effort'", True),
        ("[models.other]\nevidence = 'best_effort'", False),
        ("[default]\nevidence = 'best_effort'\n[models.loans]\nevidence = 'required'", False),
        ("[default]\nevidence = 'best_effort'\n[models.loans]\nreview = 7", True),
    ],
    ids=range(6),
)
def test_evidence_is_required_unless_the_file_says_otherwise(
    tmp_path: Path, text: str, *, is_best_effort: bool
) -> None:
    assert policy(tmp_path, text).is_best_effort is is_best_effort


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rate 5", "line 1"),
        ("[default]\nrules = [{ rate = 1.5 }]", r"default\.rules\[0\]\.rate: .*less than or equal"),
        ("[default]\nrules = [{ rate = nan }]", r"default\.rules\[0\]\.rate"),
        ("[default]\nrules = [{ rate = '0.5' }]", r"default\.rules\[0\]\.rate"),
        ("[default]\nrules = [{ rate = true }]", r"default\.rules\[0\]\.rate"),
        ("[default]\nrules = [{ explain = 'seldom' }]", r"default\.rules\[0\]\.explain"),
        ("[default]\nrules = [{ when = 'a > 1' }]", "either explain or rate"),
        ("[default]\nrules = [{ rate = 1, explain = 'always' }]", "either explain or rate"),
        ("[default]\nrules = [{ rate = 1, wen = 'a > 1' }]", r"rules\[0\]\.wen: Extra inputs"),
        ("[default]\nrules = [{ rate = 1, when = 'a >' }]", r"rules\[0\]\.when: at the end: "),
        ("[default]\nrules = [{ rate = 1, when = 'a b' }]", r"\.when: at character 3: "),
        ("[default]\nrules = [{ rate = 1 }, { rate = 0 }]", "rule 0 has no condition"),
        ("[default]\nrules = [{ rate = 1, prediction = {} }]", "give at least one of"),
        (
            "[default]\nrules = [{ rate = 1, prediction = { above = 3, below = 2 } }]",
            "nothing can match",
        ),
        ("[default]\nreview = -1", r"default\.review"),
        ("[default]\nevidence = 'off'", r"default\.evidence"),
        ("[models.loans]\nevidence = true", r"models\.loans\.evidence"),
        ("[default.decision]\nname = 'x'\nat_least = 1", r"put it under \[models\.NAME"),
        ("[models.loans.decision]\nname = 'x'", r"models\.loans\.decision\.at_least"),
        ("[default]\nretention = 0", r"default\.retention"),
        ("[default]\nretention = 36501", r"default\.retention"),
        ("[default]\nretention = true", r"default\.retention"),
        ("[models.loans]\nretention = 'forever'", r"models\.loans\.retention"),
        ("[model.loans]\nreview = 1", "model: Extra inputs"),
        ("[default]\nrules = [" + "{ rate = 1, when = 'a > 1' }," * 101 + "]", "at most 100"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_the_place(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=reason) as refused:
        policy_file(tmp_path, text)
    assert str(tmp_path / "policy.toml") in str(refused.value)


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(UnavailableError, match="No such file"):
        PolicyFile.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match=r"policy\.toml"):
        PolicyFile.read(path)
    path.write_bytes(b"#" * (2 * 1024 * 1024))
    with pytest.raises(InvalidInputError, match="larger than"):
        PolicyFile.read(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[models.loans]\nrules = [{ rate = 1, when = 'amount > 1 and agee > 1' }]",
            r"models\.loans\.rules\[0\], for the model 'loans': at character 16: .*'agee'",
        ),
        (
            "[default]\nrules = [{ rate = 1, when = 'agee > 1' }]",
            r"default\.rules\[0\], for the model 'loans'",
        ),
        (
            "[models.loans]\nrules = [{ rate = 1, prediction = { class = 'x', above = 0.1 } }]",
            "there is no class 'x'",
        ),
        ("[models.loans]\nrules = [{ rate = 1, prediction = { above = 0.1 } }]", "name one"),
        (
            "[models.loans.decision]\nname = 'x'\nat_least = 0.1\nclass = 'worse'",
            r"models\.loans\.decision, for .* no class 'worse'",
        ),
    ],
)
def test_rules_that_do_not_fit_the_model_are_refused_by_the_place(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        policy(tmp_path, text)


def test_a_class_is_nothing_to_a_regression(tmp_path: Path) -> None:
    text = "[models.loans]\nrules = [{ rate = 1, prediction = { class = 'bad', above = 1 } }]"
    with pytest.raises(InvalidInputError, match="regression"):
        policy(tmp_path, text, vocabulary=REGRESSION)


def test_the_documented_example_works(tmp_path: Path) -> None:
    example = Path("docs/policy.md").read_text().split("```toml\n")[1].split("```")[0]
    number = {"type": "number"}
    schema = ModelSchema.from_json(
        {
            "type": "object",
            "properties": {
                "purpose": {"type": "string", "enum": ["education", "business"]},
                "age": number,
                "credit_amount": number,
                "duration_months": number,
            },
            "required": ["purpose", "age", "credit_amount", "duration_months"],
        }
    )
    file = policy_file(tmp_path, example)
    vocabulary = Vocabulary(schema, ("good", "bad"), ("good", "bad"))
    found = bind(file, "german_credit", vocabulary, key_of=lambda _tenant: KEY)
    assert found.review_size == 100
    rows = [
        ("education", 20.0, 1e3, 12.0),
        ("business", 20.0, 1e3, 12.0),
        ("business", 9.0, 1e4, 12.0),
    ]
    said = [
        found.decide("default", "request-1", [row], np.array([[1 - bad, bad]]), asked=False)
        for row, bad in zip(rows, (0.9, 0.9, 0.35), strict=True)
    ]
    assert [one.rule for one in said] == ["minors' courses", "adverse", "close call"]
    assert [one.decisions for one in said] == [("decline",), ("decline",), ("accept",)]
    other = bind(file, "another", vocabulary, key_of=lambda _tenant: KEY)
    assert [rule.probability for rule in other.rules] == [0.01]
