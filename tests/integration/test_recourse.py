"""Counterfactuals over HTTP: what is told holds, is stored, and is told to nobody else."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import BrokenLog, put_in
from live_app import LiveApp
from problems import assert_problem
from recourse_apps import POLICY, Instance, closest, post, predicted, serving
from servers import wait_until
from tables import instances_of, mixed

from schemas.counterfactuals import CounterfactualList, Counterfactuals
from service import client as python_client
from service.auth import SCOPES, KeyFile
from service.disposal import Destruction, Order, erase, of_subject
from service.evidence import AppendOutcome, Event, StoreUnavailableError
from service.secrets import Keyring

CHANGED = {"radius", "area", "visits", "site", "grade", "perimeter", "texture"}
PEOPLE: dict[str, dict[str, Any]] = {
    "ann": {},
    "bob": {},
    "auditor": {},
    "masked": {"roles": ("support",)},
    "slow": {"recourse_per_minute": 2},
    "narrow": {"scopes": ("recourse",)},
}


def counted(app: LiveApp, status: str) -> float:
    labels = {"model": "mixed", "status": status}
    name = "explain_counterfactuals_total"
    return app.runtime.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, two_models: Path) -> Iterator[LiveApp]:
    with serving(tmp_path_factory.mktemp("recourse") / "data", two_models) as live:
        yield live


@pytest.fixture(scope="module")
def keyed_app(
    tmp_path_factory: pytest.TempPathFactory, two_models: Path, keys: dict[str, str]
) -> Iterator[LiveApp]:
    folder, content = tmp_path_factory.mktemp("keyed"), KeyFile()
    for name, own in PEOPLE.items():
        scopes = ("predict", "recourse") if name != "auditor" else SCOPES
        content, keys[name] = content.with_key(name, **{"scopes": scopes} | own)
    content.write(folder / "keys.json")
    policy = POLICY[: POLICY.index("radius = ")] + "visits = { low = 3, high = 4 }\n"
    with serving(folder / "data", two_models, policy, api_keys_file=folder / "keys.json") as live:
        yield live


@pytest.fixture(scope="module")
def referred(app: LiveApp, mixed_rows: list[Instance]) -> Instance:
    """Of those that are decided against and may be explained the closest call."""
    return closest(app.client(), mixed_rows)


@pytest.fixture(scope="module")
def discharged(app: LiveApp) -> Instance:
    rows = [row for row in instances_of(mixed()[0].iloc[100:200]) if row["smoothness"] <= 0.13]
    predictions = predicted(app.client(), *rows)["predictions"]
    return next(
        row for row, p in zip(rows, predictions, strict=True) if p["decision"] == "discharge"
    )


def test_each_answer_is_what_the_model_predicts_and_keeps_the_rules(
    app: LiveApp, referred: Instance
) -> None:
    client = app.client()
    answer = predicted(client, referred)
    before = counted(app, "found")
    reply = post(client, {"request_id": answer["request_id"]})
    assert reply.status == 200, reply.body
    found = Counterfactuals.model_validate_json(reply.body)
    told = reply.json()
    assert (found.status, found.target, found.constraints) == ("found", "discharge", [])
    assert (found.request_id, told["model"]) == (answer["request_id"], answer["model"])
    assert len(told["counterfactuals"]) > 1
    for each in told["counterfactuals"]:
        changes = {change["feature"]: change["to"] for change in each["changes"]}
        assert changes.keys() <= CHANGED
        assert {c["feature"]: c["from"] for c in each["changes"]}.items() <= referred.items()
        (prediction,) = predicted(client, referred | changes)["predictions"]
        assert prediction == each["prediction"]
        assert each["decision"] == prediction["decision"] == "discharge"
        assert each["score"] == prediction["probabilities"]["0"] < 0.4
        assert changes.get("radius", 0) <= referred["radius"]
        assert changes.get("visits", 0) % 2 == 0
    assert counted(app, "found") - before == 1


def test_the_rules_it_keeps_to_are_told_and_stored(app: LiveApp, referred: Instance) -> None:
    request_id = predicted(app.client(), referred)["request_id"]
    told = post(app.client(), {"request_id": request_id})
    found = Counterfactuals.model_validate_json(told.body)
    assert found.threshold is not None
    rules = {each.feature: each for each in found.rules}
    assert (found.threshold.at_least, found.most_changes, rules.keys()) == (0.5, 4, CHANGED)
    area, site = rules["area"], rules["site"]
    assert (area.low, area.high, area.step, area.levels) == (200, 900, 10, None)
    assert (site.low, site.step, site.levels) == (None, None, ["left", "right"])
    assert (rules["radius"].direction, rules["visits"].cost) == ("down", 0.5)
    (stored,) = app.client().get(f"/explanations/{request_id}/counterfactuals").json()["items"]
    for name in ("threshold", "most_changes", "rules"):
        assert stored[name] == told.json()[name]


def test_an_instance_is_predicted_and_recorded_first(app: LiveApp, referred: Instance) -> None:
    client = app.client()
    request_id = "recourse-of-instance"
    body = {"model": "mixed", "instances": [referred]}
    reply = post(client, body, **{"X-Request-ID": request_id})
    assert reply.status == 200
    assert (reply.json()["request_id"], reply.json()["status"]) == (request_id, "found")
    record = client.get(f"/explanations/{request_id}").json()
    assert record["instances"] == [referred]
    again = post(client, body, **{"X-Request-ID": request_id}).json()
    assert again["counterfactuals"] == reply.json()["counterfactuals"]
    other = post(
        client, body | {"instances": [referred | {"visits": 1}]}, **{"X-Request-ID": request_id}
    )
    assert_problem(other, 409, "request_id_conflict")


def test_what_was_told_is_stored_and_listed(app: LiveApp, referred: Instance) -> None:
    client = app.client()
    request_id = predicted(client, referred)["request_id"]
    path = f"/explanations/{request_id}/counterfactuals"
    before = client.get(f"/explanations/{request_id}")
    assert client.get(path).json() == {"items": []}
    told = [post(client, {"request_id": request_id}).json() for _ in range(2)]
    reply = client.get(path)
    CounterfactualList.model_validate_json(reply.body)
    items = reply.json()["items"]
    assert [item.pop("principal") for item in items] == ["local", "local"]
    assert all(item.pop("told_at") for item in items)
    assert items == told
    assert client.get(f"/explanations/{request_id}").body == before.body


def test_the_python_client_asks_too(app: LiveApp, discharged: Instance, referred: Instance) -> None:
    request_id = predicted(app.client(), discharged, referred)["request_id"]
    with python_client.Client(app.url) as client:
        found = client.counterfactuals(request_id, instance=1)
        with pytest.raises(python_client.NotFoundError):
            client.counterfactuals("no-such-request")
    (stored,) = app.client().get(f"/explanations/{request_id}/counterfactuals").json()["items"]
    assert (found.status, found.instance) == ("found", 1)
    told = [each.model_dump(by_alias=True) for each in found.counterfactuals]
    assert [each["changes"] for each in told] == [e["changes"] for e in stored["counterfactuals"]]


def test_one_of_several_instances_is_meant_by_its_place(
    app: LiveApp, referred: Instance, discharged: Instance
) -> None:
    client = app.client()
    request_id = predicted(client, discharged, referred)["request_id"]
    first = post(client, {"request_id": request_id}).json()
    assert (first["instance"], first["status"], first["counterfactuals"]) == (0, "not_needed", [])
    second = post(client, {"request_id": request_id, "instance": 1}).json()
    assert (second["instance"], second["status"]) == (1, "found")
    refused = post(client, {"request_id": request_id, "instance": 2})
    assert_problem(refused, 422, "invalid_content")


def test_none_found_names_what_stands_in_the_way(
    keyed_app: LiveApp, keys: dict[str, str], referred: Instance
) -> None:
    before = counted(keyed_app, "none_found")
    told = post(keyed_app.client(keys["ann"]), {"instances": [referred]}).json()
    assert (told["status"], told["counterfactuals"]) == ("none_found", [])
    assert told["is_exhaustive"]
    named = {each["feature"]: each["kind"] for each in told["constraints"]}
    assert set(named.values()) == {"immutable"}
    assert {"texture", "visits"} & named.keys() == {"texture"}
    assert counted(keyed_app, "none_found") == before + 1


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"request_id": None},
        {"request_id": "a b"},
        {"request_id": "12345678", "instances": [{}]},
        {"request_id": "12345678", "model": "mixed"},
        {"request_id": "12345678", "instance": -1},
        {"request_id": "12345678", "instance": 0.5},
        {"request_id": "12345678", "target": "discharge"},
        {"instances": []},
        {"instances": [{}, {}]},
        {"instances": [{}], "instance": 0},
        {"instances": [{"radius": 10**400}]},
        {"instances": [{"radius": {"a": 1}}]},
        {"instances": [{"radius": True}]},
        {"instances": [{"unknown": 1}]},
    ],
    ids=range(16),
)
def test_what_does_not_fit_is_refused(app: LiveApp, content: object) -> None:
    assert_problem(post(app.client(), content), 422, "invalid_content")


def test_what_is_unknown_or_not_configured_is_said_to_be_so(
    app: LiveApp, rows: list[Instance], referred: Instance
) -> None:
    client = app.client()
    assert_problem(post(client, {"request_id": "no-such-request"}), 404, "not_found")
    assert_problem(post(client, {"model": "other", "instances": [referred]}), 404, "not_found")
    refused = post(client, {"model": "breast_cancer", "instances": rows[:1]})
    assert_problem(refused, 409, "no_recourse")
    assert_problem(client.get("/explanations/no-such-request/counterfactuals"), 404, "not_found")


def test_what_policy_lets_nobody_explain_has_no_recourse_either(
    app: LiveApp, referred: Instance
) -> None:
    request_id = predicted(app.client(), referred | {"smoothness": 0.15})["request_id"]
    assert_problem(post(app.client(), {"request_id": request_id}), 422, "invalid_content")


def test_a_decision_of_another_version_is_refused(
    tmp_path: Path, two_models: Path, referred: Instance
) -> None:
    from xgboost import XGBClassifier

    from service.registry import Registry

    with serving(tmp_path / "data", two_models) as live:
        request_id = predicted(live.client(), referred)["request_id"]
        X, y = mixed()
        X = X.astype({"site": "category", "grade": "category"})
        other = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1, enable_categorical=True)
        registry = Registry(tmp_path / "data" / "registry")
        registry.register("mixed", other.fit(X, y), X, y)
        registry.promote("mixed", 2)
        wait_until(lambda: live.runtime.models.all["mixed"].model.version == 2)
        assert_problem(post(live.client(), {"request_id": request_id}), 409, "version_replaced")
        assert post(live.client(), {"instances": [referred]}).json()["model"]["version"] == 2


def test_it_is_told_to_who_may_read_the_record_and_has_the_scope(
    keyed_app: LiveApp, keys: dict[str, str], referred: Instance
) -> None:
    client = {name: keyed_app.client(key) for name, key in keys.items()}
    request_id = predicted(client["ann"], referred)["request_id"]
    path = f"/explanations/{request_id}/counterfactuals"
    assert post(client["ann"], {"request_id": request_id}).status == 200
    assert_problem(post(client["bob"], {"request_id": request_id}), 404, "not_found")
    assert_problem(client["bob"].get(path), 404, "not_found")
    assert post(client["auditor"], {"request_id": request_id}).status == 200
    items = client["auditor"].get(path).json()["items"]
    assert [item["principal"] for item in items] == ["ann", "auditor"]
    assert_problem(post(client["narrow"], {"instances": [referred]}), 403, "forbidden")


def test_a_role_that_masks_a_column_is_told_nothing_and_nothing_is_recorded(
    keyed_app: LiveApp, keys: dict[str, str], referred: Instance
) -> None:
    masked = keyed_app.client(keys["masked"])
    request_id = predicted(masked, referred)["request_id"]
    assert_problem(post(masked, {"request_id": request_id}), 403, "forbidden")
    assert_problem(masked.get(f"/explanations/{request_id}/counterfactuals"), 403, "forbidden")
    refused = post(masked, {"instances": [referred]}, **{"X-Request-ID": "masked-instance"})
    assert_problem(refused, 403, "forbidden")
    assert_problem(masked.get("/explanations/masked-instance"), 404, "not_found")


def test_it_has_a_quota_of_its_own(
    keyed_app: LiveApp, keys: dict[str, str], referred: Instance
) -> None:
    slow = keyed_app.client(keys["slow"])
    request_id = predicted(slow, referred)["request_id"]
    assert [post(slow, {"request_id": request_id}).status for _ in range(2)] == [200, 200]
    refused = post(slow, {"request_id": request_id})
    assert_problem(refused, 429, "quota_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 30
    refused = post(slow, {"instances": [referred]}, **{"X-Request-ID": "over-its-quota"})
    assert_problem(refused, 429, "quota_exceeded")
    assert_problem(slow.get("/explanations/over-its-quota"), 404, "not_found")
    assert predicted(slow, referred)["predictions"]


class ReadOnly(BrokenLog):
    """An evidence log that takes nothing."""

    def _check(self) -> None: ...

    async def append(self, _: Event) -> AppendOutcome:
        raise StoreUnavailableError("the disk is full")


def test_nothing_is_told_that_is_not_stored(app: LiveApp, referred: Instance) -> None:
    request_id = predicted(app.client(), referred)["request_id"]
    log = app.runtime.evidence
    put_in(app.runtime, ReadOnly(log))
    try:
        reply = post(app.client(), {"request_id": request_id})
    finally:
        put_in(app.runtime, log)  # type: ignore[arg-type]
    assert_problem(reply, 503, "store_unavailable")
    path = f"/explanations/{request_id}/counterfactuals"
    assert app.client().get(path).json() == {"items": []}


def test_it_is_erased_with_the_subject_it_is_about(app: LiveApp, referred: Instance) -> None:
    client, store = app.client(), app.runtime.evidence.store
    answer = predicted(client, referred, referred, subjects=["anna", "bert"])
    request_id = answer["request_id"]
    for place in (0, 1):
        asked = {"request_id": request_id, "instance": place}
        assert post(client, asked).json()["status"] == "found"
    keyring = Keyring.open(app.runtime.settings.secret_file)
    anna = keyring.digest("default", "subject", b"anna")
    what = Destruction("erasure", Order("test", "asked", datetime.now(UTC)), subject=anna)
    assert erase(store, of_subject(store, "default", anna), what).erased == 1
    items = client.get(f"/explanations/{request_id}/counterfactuals").json()["items"]
    assert [item["instance"] for item in items] == [1]
    refused = post(client, {"request_id": request_id, "instance": 1})
    assert_problem(refused, 422, "invalid_content")


def test_the_pages_example_is_an_answer() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recourse.md").read_text()
    (block,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert Counterfactuals.model_validate_json(block).status == "found"
