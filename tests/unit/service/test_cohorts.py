"""Reference cohorts: exact against enumeration, pinned, and refused where they cannot be used."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pandas as pd
import pytest
from asks import ask_of, prepared_of
from called_families import CALLED
from faulty_parts import OddExplainer, five_percent_off
from policies import KEY
from tables import instances_of, mixed

from explainers.base import Explainer
from explainers.exact import interventional_values
from schemas import DecodedBody
from service.cohorts import MOST_ROWS, Cohorts
from service.errors import InvalidInputError
from service.metrics import Metrics
from service.policies import Policies
from service.policy import ModelPolicy
from service.registry import RegisteredModel, Registry
from service.registry.tables import encode_frame
from service.registry.work import Options
from service.secrets import Keyring
from service.served import ServedModel

KEYRING = Keyring(KEY)


@pytest.fixture(scope="module")
def model(two_models: Path) -> RegisteredModel:
    """Trees over six numbers, two category columns with gaps and an integer."""
    return Registry(two_models).serving("mixed")


@pytest.fixture(scope="module")
def cohort() -> pd.DataFrame:
    return mixed()[0].iloc[100:130]


def written(folder: Path, frame: pd.DataFrame, model: RegisteredModel, digest: str = "") -> Path:
    """A policy that pins these rows, under another digest if one is given."""
    frame.to_csv(folder / "cohort.csv", index=False)
    found = hashlib.sha256((folder / "cohort.csv").read_bytes()).hexdigest()
    label = model.manifest.classes[1] if model.manifest.classes else None
    codes = "\n".join(
        f'"{name}" = {{ code = "R{place}", text = "about {name}" }}'
        for place, name in enumerate(model.schema.names)
    )
    (folder / "policy.toml").write_text(f"""
[models.{model.name}.decision]
name = "refer"
at_least = 0.0
class = "{label}"
[models.{model.name}.reasons]
adverse = "refer"
most = 10
cohort = {{ file = "cohort.csv", sha256 = "{digest or found}" }}
[models.{model.name}.reasons.codes]
{codes}
""")
    return folder / "policy.toml"


def bound(folder: Path, frame: pd.DataFrame, model: RegisteredModel, **more: str) -> ModelPolicy:
    return Policies(written(folder, frame, model, **more), KEYRING).of(model)


def explained(model: RegisteredModel, policy: ModelPolicy, body: DecodedBody) -> Any:
    served = ServedModel.of(model, Metrics(), retention_days=1, policy=policy)
    prepared = prepared_of(served, ask_of(served, body))
    return orjson.loads(prepared.answer)["explanation"]


def test_contributions_are_the_values_of_the_game_over_the_cohort(
    tmp_path: Path, model: RegisteredModel, cohort: pd.DataFrame
) -> None:
    body = orjson.dumps({"instances": instances_of(mixed()[0].iloc[::120])})
    decoded = model.codec.decode(body, max_instances=5)
    policy = bound(tmp_path, cohort, model)
    entries = explained(model, policy, decoded)["reasons"]
    background = encode_frame(cohort, model.native.columns.raw, unknown={})
    X = np.array(decoded.codes)
    values = np.array([interventional_values(model.evaluate, row, background) for row in X])
    n_reasons = 0
    for exact, entry in zip(values[:, :, 0], entries, strict=True):
        found = {item["code"]: item["contribution"] for item in entry["items"]}
        expected = {f"R{i}": value for i, value in enumerate(exact) if value > 1e-5}
        n_reasons += len(expected)
        assert {code: found[code] for code in expected} == pytest.approx(expected, abs=1e-5)
        assert all(found[code] < 1e-4 for code in found.keys() - expected.keys())
    assert n_reasons > len(entries)


def test_without_the_cohort_at_hand_they_are_withheld(
    tmp_path: Path, model: RegisteredModel, cohort: pd.DataFrame
) -> None:
    policy = replace(bound(tmp_path, cohort, model), cohort=None)
    body = model.codec.decode(orjson.dumps({"instances": [model.sample]}), max_instances=1)
    explanation = explained(model, policy, body)
    assert explanation["status"] == "complete"
    (entry,) = explanation["reasons"]
    assert (entry["status"], entry["items"]) == ("withheld", [])
    assert "not at hand" in entry["reason"]


def test_what_is_wrong_relative_to_the_cohort_is_withheld(
    tmp_path: Path, model: RegisteredModel, cohort: pd.DataFrame
) -> None:
    policy = bound(tmp_path, cohort, model)
    assert policy.cohort is not None
    odd = OddExplainer(policy.cohort, five_percent_off)
    body = model.codec.decode(orjson.dumps({"instances": [model.sample]}), max_instances=1)
    (entry,) = explained(model, replace(policy, cohort=cast("Explainer", odd)), body)["reasons"]
    assert (entry["status"], entry["items"]) == ("withheld", [])
    assert entry["reason"] == "the explanation relative to the cohort failed: additivity"


def test_another_digest_is_refused(
    tmp_path: Path, model: RegisteredModel, cohort: pd.DataFrame
) -> None:
    place = r"models\.mixed\.reasons, for the model 'mixed': cohort: .* has the digest sha256:"
    with pytest.raises(InvalidInputError, match=place):
        bound(tmp_path, cohort, model, digest="0" * 64)


def test_a_file_that_is_not_there_is_refused(
    tmp_path: Path, model: RegisteredModel, cohort: pd.DataFrame
) -> None:
    policy = written(tmp_path, cohort, model)
    (tmp_path / "cohort.csv").unlink()
    with pytest.raises(InvalidInputError, match="No such file"):
        Policies(policy, KEYRING).of(model)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows.drop(columns="grade"), "columns the data do not have: 'grade'"),
        (lambda rows: rows.assign(grade="worst"), "values the model does not know"),
        (lambda rows: rows.assign(radius=None), "refuses row 1|holds"),
        (lambda rows: rows.iloc[:0], "has 0 rows"),
        (lambda rows: pd.concat([rows] * 40), f"has 1200 rows; a cohort has 1 to {MOST_ROWS}"),
    ],
    ids=["column", "level", "gap", "empty", "long"],
)
def test_rows_that_are_none_of_the_schema_are_refused(
    tmp_path: Path, model: RegisteredModel, cohort: pd.DataFrame, change: Any, complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        bound(tmp_path, change(cohort), model)


def test_a_version_that_is_explained_by_calling_it_takes_no_cohort(tmp_path: Path) -> None:
    family = CALLED["mlp"]()
    options = Options(background_rows=20, **family.options)
    registry = Registry(tmp_path / "registry")
    registry.register("mlp", family.model, family.X, family.y, options=options)
    with pytest.raises(InvalidInputError, match=r"is explained by calling it .* needs trees or"):
        bound(tmp_path, family.X.iloc[:20], registry.serving("mlp"))


def test_where_the_file_at_hand_is_another_there_is_no_cohort(
    tmp_path: Path, model: RegisteredModel, cohort: pd.DataFrame
) -> None:
    rule = bound(tmp_path, cohort, model).reasons
    assert rule is not None
    path = tmp_path / "policy.toml"
    assert Cohorts(path).of(model, rule) is not None
    assert Cohorts(None).of(model, rule) is None
    assert Cohorts(tmp_path / "nothing.toml").of(model, rule) is None
    assert Cohorts(path).of(model, replace(rule, cohort_digest="sha256:" + "0" * 64)) is None
    assert Cohorts(path).of(model, replace(rule, cohort_digest=None)) is None


def test_a_cohort_that_was_not_at_hand_is_looked_for_again_a_minute_later(
    tmp_path: Path, model: RegisteredModel, cohort: pd.DataFrame
) -> None:
    rule = bound(tmp_path, cohort, model).reasons
    assert rule is not None
    now = [0.0]
    cohorts = Cohorts(tmp_path / "policy.toml", clock=lambda: now[0])
    (tmp_path / "cohort.csv").rename(tmp_path / "away.csv")
    assert cohorts.of(model, rule) is None
    (tmp_path / "away.csv").rename(tmp_path / "cohort.csv")
    assert cohorts.of(model, rule) is None
    now[0] = 60.0
    assert cohorts.of(model, rule) is not None
