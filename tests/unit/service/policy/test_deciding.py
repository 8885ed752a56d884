"""First match, what is wanted, the draw nobody outside can steer, and decisions by threshold."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from policies import REGRESSION, ROW, policy, row

from service.errors import InvalidInputError
from service.policy import ModelPolicy, PolicyDecision

N = 20_000
RATE = 0.1
RULES = """
[models.loans]
[[models.loans.rules]]
when = 'status is missing'
explain = "never"
[[models.loans.rules]]
name = "adverse"
prediction = { class = "bad", at_least = 0.5 }
explain = "always"
[[models.loans.rules]]
name = "close"
prediction = { class = "bad", above = 0.4, below = 0.5 }
when = 'amount > 100'
rate = 0.25
"""


def decide(
    model: ModelPolicy,
    *bad: float,
    asked: bool = False,
    cells: tuple[object, ...] = ROW,
    request_id: str = "request-1",
) -> PolicyDecision:
    """On rows alike but for the probability of `bad`."""
    scores = np.array([[1 - p, p] for p in bad])
    return model.decide("default", request_id, [cells] * len(bad), scores, asked=asked)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("bad", "changes", "rule", "probability"),
    [
        (0.5, {}, "adverse", 1.0),
        (0.45, {}, "close", 0.25),
        (0.45, {"amount": 1.0}, None, 0.0),
        (0.4, {}, None, 0.0),
        (0.9, {"status": None}, "models.loans.rules[0]", 0.0),
    ],
)
def test_the_first_rule_that_matches_decides(
    tmp_path: Path, bad: float, changes: dict[str, object], rule: str | None, probability: float
) -> None:
    decision = decide(policy(tmp_path, RULES), bad, cells=row(**changes))
    assert (decision.rule, decision.probability) == (rule, probability)


def test_a_rule_matches_a_request_by_any_of_its_rows(tmp_path: Path) -> None:
    found = policy(tmp_path, RULES)
    assert decide(found, 0.1, 0.2, 0.6).rule == "adverse"
    assert decide(found, 0.1, 0.2, 0.3).rule is None


@pytest.mark.parametrize(
    ("rule", "asked", "wants", "skipped"),
    [
        ('explain = "always"', False, True, False),
        ('explain = "always"', True, True, False),
        ('explain = "when_asked"', False, False, False),
        ('explain = "when_asked"', True, True, False),
        ('explain = "never"', False, False, False),
        ('explain = "never"', True, False, True),
        ("rate = 0", False, False, False),
        ("rate = 0", True, True, False),
        ("rate = 1", False, True, False),
        ("rate = 0.000001", True, True, False),
    ],
)
def test_what_is_wanted(
    tmp_path: Path, rule: str, *, asked: bool, wants: bool, skipped: bool
) -> None:
    decision = decide(policy(tmp_path, f"[default]\nrules = [{{ {rule} }}]"), 0.5, asked=asked)
    assert decision.wants is wants
    assert (decision.skipped is not None) is skipped
    assert not decision.is_drawn or decision.wants


def test_without_a_rule_asking_is_what_counts(tmp_path: Path) -> None:
    empty = policy(tmp_path, "")
    assert decide(empty, 0.5, asked=True).wants
    assert not decide(empty, 0.5).wants
    assert decide(empty, 0.5).rule is None


def test_the_record_says_how_it_was_decided(tmp_path: Path) -> None:
    found = policy(
        tmp_path,
        RULES + '[models.loans.decision]\nname = "decline"\nclass = "bad"\nat_least = 0.4',
    )
    decision = decide(found, 0.3999, 0.4, 0.45)
    stored = json.loads(json.dumps(decision.to_json()))
    assert 0 <= stored.pop("u") < 1
    assert stored.pop("canary") == {"probability": 0.001, "u": decision.canary[1]}
    assert stored == {
        "version": found.version,
        "rule": "close",
        "asked": False,
        "allowed": True,
        "probability": 0.25,
        "wants": decision.u < 0.25,
        "threshold": {"class": "bad", "at_least": 0.4, "name": "decline", "otherwise": None},
        "decisions": [None, "decline", "decline"],
    }


def test_a_regression_is_decided_by_its_value(tmp_path: Path) -> None:
    text = (
        '[models.loans]\nrules = [{ prediction = { above = 9 }, explain = "always" }]\n'
        '[models.loans.decision]\nname = "high"\notherwise = "low"\nat_least = 10'
    )
    found = policy(tmp_path, text, vocabulary=REGRESSION)
    scores = np.array([[9.5], [10.0]])
    decision = found.decide("default", "request-1", [ROW, ROW], scores, asked=False)
    assert decision.decisions == ("low", "high")
    assert decision.wants


def drawn(model: ModelPolicy, ids: list[str], tenant: str = "default") -> np.ndarray:
    scores = np.array([[0.5, 0.5]])
    return np.array(
        [model.decide(tenant, name, [ROW], scores, asked=False).is_drawn for name in ids]
    )


def rated(
    folder: Path, rate: float = RATE, *, key: bytes = bytes(32), note: str = ""
) -> ModelPolicy:
    return policy(folder, f"[default]\nrules = [{{ rate = {rate}{note} }}]", key=key)


def plain_u(name: str) -> float:
    """What a client could compute without the key."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def five_sigma(n: int, rate: float) -> float:
    return 5 * math.sqrt(rate * (1 - rate) / n)


SEQUENCE = [f"request-{i:08d}" for i in range(N)]
PATTERNS = {
    "in sequence": SEQUENCE,
    "one character differs": [f"{i:05d}-constant-tail" for i in range(N)],
    "long and alike": ["a" * 56 + f"{i:08d}" for i in range(N)],
    "chosen against an unkeyed hash": [
        name for name in (f"chosen-{i:08d}" for i in range(N + N // 8)) if plain_u(name) >= RATE
    ],
}


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_a_rate_is_kept_whatever_ids_clients_choose(tmp_path: Path, pattern: str) -> None:
    ids = PATTERNS[pattern]
    share = drawn(rated(tmp_path), ids).mean()
    assert abs(share - RATE) < five_sigma(len(ids), RATE)


def test_an_unkeyed_draw_would_not_keep_it() -> None:
    ids = PATTERNS["chosen against an unkeyed hash"]
    share = np.mean([plain_u(name) < RATE for name in ids])
    assert not abs(share - RATE) < five_sigma(len(ids), RATE)


def test_draws_are_uniform_and_neighbours_independent(tmp_path: Path) -> None:
    scores = np.array([[0.5, 0.5]])
    model = rated(tmp_path)
    draws = np.array(
        [model.decide("default", name, [ROW], scores, asked=False).u for name in SEQUENCE]
    )
    steps = np.arange(1, N + 1) / N
    assert np.abs(np.sort(draws) - steps).max() < 2.2 / math.sqrt(N)  # Kolmogorov: P < 2e-4
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5 / math.sqrt(N)


@pytest.mark.parametrize("other", ["version", "key", "tenant"])
def test_another_version_key_or_tenant_draws_anew(tmp_path: Path, other: str) -> None:
    first = drawn(rated(tmp_path), SEQUENCE)
    if other == "version":
        second = drawn(rated(tmp_path, note=", name = 'other'"), SEQUENCE)
    elif other == "key":
        second = drawn(rated(tmp_path, key=b"k" * 32), SEQUENCE)
    else:
        second = drawn(rated(tmp_path), SEQUENCE, tenant="other")
    share = (first & second).mean()
    assert abs(share - RATE**2) < five_sigma(N, RATE**2)
    assert (first == drawn(rated(tmp_path), SEQUENCE)).all()


def test_a_higher_rate_of_the_same_draw_would_include_the_lower(tmp_path: Path) -> None:
    scores = np.array([[0.5, 0.5]])
    model = rated(tmp_path)
    decisions = [
        model.decide("default", name, [ROW], scores, asked=False) for name in SEQUENCE[:500]
    ]
    assert all(found.is_drawn == (found.u < RATE) for found in decisions)


def test_canaries_are_drawn_independently_of_what_is_explained(tmp_path: Path) -> None:
    model = policy(tmp_path, f"[default]\ncanary = {RATE}\nrules = [{{ rate = {RATE} }}]")
    scores = np.array([[0.5, 0.5]])
    decisions = [model.decide("default", name, [ROW], scores, asked=True) for name in SEQUENCE]
    explained = np.array([decision.u < RATE for decision in decisions])
    checked = np.array([decision.is_canary for decision in decisions])
    assert abs(checked.mean() - RATE) < five_sigma(N, RATE)
    assert abs((explained & checked).mean() - RATE**2) < five_sigma(N, RATE**2)
    unasked = [model.decide("default", name, [ROW], scores, asked=False) for name in SEQUENCE]
    assert not any(decision.is_canary for decision in unasked)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.001),
        ("[default]\ncanary = 0", 0.0),
        ("[default]\ncanary = 0.5\n[models.loans]\ncanary = 0.25", 0.25),
        ("[default]\ncanary = 0.5\n[models.other]\ncanary = 0.25", 0.5),
    ],
)
def test_the_share_of_canaries_is_the_models_or_the_default(
    tmp_path: Path, text: str, share: float
) -> None:
    assert policy(tmp_path, text).canary == share


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan", '"often"'])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: str) -> None:
    with pytest.raises(InvalidInputError, match=r"default\.canary"):
        policy(tmp_path, f"[default]\ncanary = {share}")
