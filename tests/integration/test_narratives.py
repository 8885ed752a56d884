"""GET /explanations/{id}/narrative, over models of every kind: numbers, words, rights, caching."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from live_app import LiveApp, live_app
from masked_roles import PATH, POLICY, settings_of
from narrated import (
    assert_every_number_is_the_records,
    quoted_in,
    strings_in,
    texts,
)
from servers import Client, Reply
from tables import diabetes, instances_of, larger_table, wine

from schemas import Narrated
from service.accesses import AccessFilter, listed
from service.narratives import AUDIENCES
from service.registry import Registry
from service.registry.work import Options

Instance = dict[str, Any]
CREDIT_POLICY = """
[models.german_credit.decision]
name = "decline"
otherwise = "accept"
class = "bad"
at_least = 0.4
"""
CREDIT = pytest.param("german_credit", marks=pytest.mark.extra_data)
MODELS = ["breast_cancer", "mixed", "wine", "diabetes", CREDIT]


@dataclass(frozen=True)
class Site:
    app: LiveApp
    keys: dict[str, str]
    rows: dict[str, list[Instance]]

    def client(self, name: str = "owner") -> Client:
        return self.app.client(self.keys[name])

    def predicted(self, model: str, n_rows: int = 1, query: str = "?explain=true") -> str:
        path = f"/models/{model}/predict"
        reply = self.client().predict(self.rows[model][:n_rows], path=path, query=query)
        assert reply.status == 200, reply.body
        return str(reply.headers["x-request-id"])

    def told(self, request_id: str, audience: str, name: str = "owner") -> Reply:
        path = f"/explanations/{request_id}/narrative?audience={audience}"
        return self.client(name).get(path)


def registered(folder: Path, two_models: Path) -> dict[str, list[Instance]]:
    """Beside the two models a regression, a multiclass model and, where it is, German credit."""
    from sklearn.linear_model import Ridge
    from xgboost import XGBClassifier

    shutil.copytree(two_models, folder / "registry")
    registry = Registry(folder / "registry")
    X, y = diabetes()
    registry.register("diabetes", Ridge().fit(X, y), X, y)
    W, kind = wine()
    names = {0: "kind 1", 1: "b/2", 2: 'c~"3"'}
    trees = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1).fit(W, kind)
    options = Options(classes=tuple(names.values()))
    registry.register("wine", trees, W, kind.map(names), options=options)
    rows = {"diabetes": instances_of(X.iloc[:4]), "wine": instances_of(W.iloc[::40])}
    if "EXPLAIND_TEST_DATA" in os.environ:
        rows["german_credit"] = _credit(registry)
    return rows


def _credit(registry: Registry) -> list[Instance]:
    from xgboost import XGBClassifier

    table = larger_table("german_credit")
    X, risk = table.drop(columns="risk"), table["risk"]
    texts = {name: "category" for name in X if not pd.api.types.is_numeric_dtype(X[name])}
    model = XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1, enable_categorical=True)
    model.fit(X.astype(texts), (risk == "bad").astype(int))
    registry.register("german_credit", model, X, risk, options=Options(classes=("good", "bad")))
    return instances_of(X.iloc[:30])


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    two_models: Path,
    rows: list[Instance],
    mixed_rows: list[Instance],
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("told")
    instances = registered(folder, two_models)
    keys: dict[str, str] = {}
    settings = settings_of(folder, keys)
    credit = CREDIT_POLICY if "german_credit" in instances else ""
    (folder / "policy.toml").write_text(POLICY + credit)
    calm = [{**row, "visits": 3} for row in mixed_rows]
    with live_app(folder, **settings) as app:
        yield Site(app, keys, {**instances, "breast_cancer": rows, "mixed": calm})


@pytest.mark.parametrize("audience", AUDIENCES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n_rows", [1, 3])
def test_every_number_of_the_text_is_a_number_of_the_record(
    site: Site, model: str, audience: str, n_rows: int
) -> None:
    request_id = site.predicted(model, n_rows)
    reply = site.told(request_id, audience)
    Narrated.model_validate_json(reply.body)
    told = reply.json()
    whole = _whole(site, request_id, told)
    assert_every_number_is_the_records(told, whole)
    assert quoted_in(told["paragraphs"]) <= strings_in(whole)
    assert "not causes" in told["caveat"]


def predicted_for(site: Site, model: str, decision: str) -> str:
    """The request of the first row that policy decides so."""
    for row in site.rows[model]:
        reply = site.client().predict([row], path=f"/models/{model}/predict")
        if reply.json()["predictions"][0]["decision"] == decision:
            return str(reply.headers["x-request-id"])
    raise AssertionError(f"nothing is decided {decision!r}")


@pytest.mark.extra_data
def test_a_declined_applicant_is_told_the_outcome_and_what_counted_in_plain_words(
    site: Site,
) -> None:
    request_id = predicted_for(site, "german_credit", "decline")
    record = site.client().get(f"/explanations/{request_id}").json()
    told = texts(site.told(request_id, "applicant").json())
    assert told.startswith('The outcome of this case is "decline". The model sees a chance of ')
    (row,), names = record["explanation"]["values"], record["explanation"]["feature_names"]
    strongest = names[max(range(len(names)), key=lambda i: row[i][0])]
    assert f'What counted most towards "bad", the strongest first: "{strongest}" (given as ' in told
    assert 'The model looked at nothing but these: "status", "duration_months", ' in told
    for jargon in ("attribution", "Shapley", "log-odds", "background", "sha256", "threshold"):
        assert jargon not in told


@pytest.mark.extra_data
def test_an_agent_is_told_the_threshold_and_the_numbers(site: Site) -> None:
    request_id = predicted_for(site, "german_credit", "decline")
    told = texts(site.told(request_id, "agent").json())
    assert 'Decision: "decline", because the score of "bad", ' in told
    assert ", reaches the threshold 0.4." in told
    assert 'Contributions are in log-odds of "bad".' in told


def test_a_warning_is_told_to_the_agent_alone(site: Site) -> None:
    strange = {**site.rows["breast_cancer"][0], "mean radius": 1000.0}
    reply = site.client().predict([strange], path="/models/breast_cancer/predict")
    request_id = reply.headers["x-request-id"]
    warned = '"mean radius" is outside the range of the registration data.'
    assert "Warning: " + warned in texts(site.told(request_id, "agent").json())
    assert warned not in texts(site.told(request_id, "applicant").json())


def test_the_positive_class_and_the_other_one_are_each_told_from_their_own_side(
    site: Site,
) -> None:
    for row in site.rows["breast_cancer"]:
        reply = site.client().predict([row], path="/models/breast_cancer/predict")
        (prediction,) = reply.json()["predictions"]
        (values,) = reply.json()["explanation"]["values"]
        sign = 1 if prediction["label"] == "benign" else -1
        place = max(range(len(values)), key=lambda i: sign * values[i][0])
        name = reply.json()["explanation"]["feature_names"][place]
        told = texts(site.told(reply.headers["x-request-id"], "applicant").json())
        assert f'towards "{prediction["label"]}", the strongest first: "{name}"' in told


def test_a_masked_role_is_told_of_the_columns_it_may_see_alone(site: Site) -> None:
    request_id = site.predicted("mixed", 2)
    record = site.client("support").get(f"/explanations/{request_id}").json()
    for audience in AUDIENCES:
        told = site.told(request_id, audience, "support").json()
        assert told["decision_rule"] is None
        assert_every_number_is_the_records(told, record)
        assert quoted_in(told["paragraphs"]) <= strings_in(record)
        assert told != site.told(request_id, audience).json()
        assert '"refer"' not in texts(told)
    visible = [entry for entry in record["explanation"]["visible"][0] if entry["sign"] < 0]
    told = texts(site.told(request_id, "applicant", "support").json())
    assert f'"0": "{visible[0]["feature"]}"' in told
    assert "%" not in told


def test_an_applicant_whose_role_may_see_nothing_is_told_no_column(site: Site) -> None:
    request_id = site.predicted("mixed")
    told = site.told(request_id, "applicant", "misspelt").json()
    assert "Nothing that may be shown here counted" in texts(told)
    assert told["numbers"] == []


def test_a_final_narrative_is_the_same_bytes_under_a_strong_etag(site: Site) -> None:
    request_id = site.predicted("wine")
    replies = [site.told(request_id, audience) for audience in (*AUDIENCES, "agent")]
    assert replies[1].body == replies[3].body
    assert len({reply.headers["etag"] for reply in replies}) == 3
    for reply in replies:
        tag = hashlib.sha256(reply.body).hexdigest()[:32]
        assert reply.headers["etag"] == f'"{tag}"'
        assert reply.headers["cache-control"] == "private, no-cache"
        assert reply.headers["vary"] == "Accept, Authorization"
    path = f"/explanations/{request_id}/narrative?audience=agent"
    seen = site.client().request("GET", path, None, {"If-None-Match": replies[1].headers["etag"]})
    assert (seen.status, seen.body) == (304, b"")


def test_who_reads_anothers_record_in_words_is_in_the_access_log(site: Site) -> None:
    request_id = site.predicted("wine")
    site.told(request_id, "applicant", "trusted")
    site.told(request_id, "applicant")
    store = site.app.runtime.evidence.store
    found = [*listed(store, AccessFilter(tenant="default", request_id=request_id))]
    assert [(entry["event_type"], entry["principal"]) for entry in found] == [
        ("access/read", "trusted")
    ]


def test_an_unknown_audience_is_refused(site: Site) -> None:
    reply = site.told(site.predicted("wine"), "regulator")
    assert reply.status == 422


def test_without_an_explanation_it_says_so(site: Site) -> None:
    request_id = site.predicted("wine", query="")
    told = site.told(request_id, "applicant").json()
    assert told["paragraphs"][-1] == "No explanation was asked for."
    assert "not causes" in told["caveat"]


def test_a_skipped_one_tells_its_reason_to_who_may_know_it(site: Site) -> None:
    busy = {**site.rows["mixed"][0], "visits": 8}
    reply = site.client().predict([busy], path=PATH)
    request_id = reply.headers["x-request-id"]
    reason = reply.json()["explanation"]["reason"]
    told = {audience: site.told(request_id, audience).json() for audience in AUDIENCES}
    assert told["applicant"]["paragraphs"][-1] == "No explanation is made for this answer."
    why = json.dumps(reason)
    assert told["agent"]["paragraphs"][-1] == f"The explanation was skipped. The reason: {why}."
    assert_every_number_is_the_records(told["agent"], _whole(site, request_id, told["agent"]))


def _whole(site: Site, request_id: str, told: dict[str, Any]) -> dict[str, Any]:
    record = site.client().get(f"/explanations/{request_id}").json()
    return {**record, "decision_rule": told["decision_rule"]}


def test_a_pending_one_says_when_to_ask_again_and_is_not_kept(
    site: Site, tmp_path: Path, demo_registry: Path
) -> None:
    settings = {"redis_url": f"unix://{tmp_path / 'nobody'}", "inline_budget_seconds": 1e-9}
    with live_app(tmp_path, registry=demo_registry, **settings) as app:
        client = app.client()
        reply = client.predict(site.rows["breast_cancer"][:1])
        path = f"/explanations/{reply.headers['x-request-id']}/narrative"
        told = client.get(path)
    assert told.json()["audience"] == "applicant"
    assert told.json()["paragraphs"][-1].startswith("The explanation is still being made.")
    assert told.headers["retry-after"] == "1"
    assert told.headers["cache-control"] == "no-store"
    assert "etag" not in told.headers
