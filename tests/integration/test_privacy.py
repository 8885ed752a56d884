"""Personal data a client sends where it does not belong are stored and shown nowhere."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from later import NO_INLINE, Worker
from live_app import LiveApp, live_app
from servers import JSON, WITH_WORKER, Client, Reply, running_server
from tables import instances_of, mixed

from service.registry import Registry

CARD, EMAIL = "4111 1111 1111 1111", "planted.person@example.com"
PLANTED = (CARD, CARD.replace(" ", ""), EMAIL, "planted.person")
Instance = dict[str, Any]


def fitted(kind: str) -> tuple[Any, Any, Any]:
    """Models that take any text in `site` and `grade`: as missing, or as none of the levels."""
    X, y = mixed()
    X = X[["radius", "area", "site", "grade"]].fillna({"site": "both"})
    texts = ["site", "grade"]
    if kind == "missing":
        from lightgbm import LGBMClassifier

        prepared = X.astype(dict.fromkeys(texts, "category"))
        return LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(prepared, y), X, y
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), texts), (StandardScaler(), ["radius", "area"])
    )
    return make_pipeline(encode, LogisticRegression()).fit(X, y), X, y


@pytest.fixture(scope="module")
def open_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("open") / "registry"
    for kind in ("missing", "ignore"):
        Registry(path).register(kind, *fitted(kind))
    return path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, open_models: Path) -> Iterator[LiveApp]:
    data_dir = tmp_path_factory.mktemp("privacy")
    shutil.copytree(open_models, data_dir / "registry")
    with live_app(data_dir) as live:
        yield live


@pytest.fixture(scope="module")
def row() -> Instance:
    X, _ = mixed()
    return instances_of(X[["radius", "area", "site", "grade"]].iloc[3:4])[0] | {"grade": "high"}


def findings(app: LiveApp, entity: str, action: str = "redact", detector: str = "input") -> float:
    wanted = f'detector="{detector}",entity="{entity}"'
    lines = app.client().get("/metrics").body.decode().splitlines()
    (line,) = [
        line
        for line in lines
        if line.startswith("explain_privacy_findings_total{")
        and f'action="{action}",{wanted}' in line
    ]
    return float(line.rpartition(" ")[2])


def scans(app: LiveApp, outcome: str) -> float:
    name = f'explain_privacy_scans_total{{detector="input",outcome="{outcome}"}} '
    lines = app.client().get("/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(name)).removeprefix(name))


def predict(client: Client, kind: str, row: Instance, **headers: str) -> Reply:
    path = f"/models/{kind}/predict"
    return client.predict([row], path=path, query="?explain=true&top=4", headers=headers)


@pytest.mark.parametrize("kind", ["missing", "ignore"])
def test_a_text_the_model_does_not_know_is_stored_and_shown_without_personal_data(
    live: LiveApp, row: Instance, kind: str
) -> None:
    client, before = live.client(), findings(live, "email")
    stranger = predict(client, kind, row | {"grade": "a stranger"}).json()
    planted = predict(client, kind, row | {"grade": f"ask {EMAIL}"}).json()
    assert planted["predictions"] == stranger["predictions"]
    assert planted["explanation"]["values"] == stranger["explanation"]["values"]
    assert planted["warnings"] == stranger["warnings"] != []
    shown = {entry["feature"]: entry["value"] for entry in planted["explanation"]["top"][0]}
    assert shown["grade"] == "ask [email]"
    record = client.get(f"/explanations/{planted['request_id']}").json()
    assert record["instances"] == [row | {"grade": "ask [email]"}]
    kept = client.get(f"/explanations/{stranger['request_id']}").json()["instances"]
    assert kept == [row | {"grade": "a stranger"}]
    assert findings(live, "email") == before + 1


def test_a_level_the_model_knows_is_neither_searched_nor_changed(
    live: LiveApp, row: Instance
) -> None:
    before = scans(live, "clean"), scans(live, "found")
    answer = predict(live.client(), "missing", row).json()
    assert (scans(live, "clean"), scans(live, "found")) == before
    record = live.client().get(f"/explanations/{answer['request_id']}").json()
    assert record["instances"] == [row]


def test_only_the_planted_rows_of_a_batch_change(live: LiveApp, row: Instance) -> None:
    rows = [row, row | {"site": CARD}, row, row | {"grade": EMAIL, "site": f"{CARD} {EMAIL}"}]
    reply = live.client().predict(rows, path="/models/ignore/predict")
    record = live.client().get(f"/explanations/{reply.json()['request_id']}").json()
    assert record["instances"] == [
        row,
        row | {"site": "[payment_card]"},
        row,
        row | {"grade": "[email]", "site": "[payment_card] [email]"},
    ]


def test_requests_that_differ_only_in_what_was_blacked_out_are_not_the_same(
    live: LiveApp, row: Instance
) -> None:
    client, chosen = live.client(), {"X-Request-ID": "planted-twice"}
    first = predict(client, "missing", row | {"grade": EMAIL}, **chosen)
    again = predict(client, "missing", row | {"grade": EMAIL}, **chosen)
    other = predict(client, "missing", row | {"grade": "x" + EMAIL}, **chosen)
    assert (first.status, again.body, other.status) == (200, first.body, 409)


def test_a_model_without_such_columns_has_nothing_to_search(two_models: Path) -> None:
    from service.metrics import Metrics
    from service.serving import ServedModels

    models = ServedModels(Registry(two_models), Metrics(), default=None, retention_days=1)
    models.refresh()
    assert {served.screening for served in models.all.values()} == {None}


def test_a_queued_explanation_shows_what_is_stored(
    tmp_path: Path, open_models: Path, row: Instance
) -> None:
    shutil.copytree(open_models, tmp_path / "registry")
    with live_app(tmp_path, **NO_INLINE) as app:
        client = app.client()
        request_id = predict(client, "missing", row | {"grade": EMAIL}).json()["request_id"]
        Worker(app).complete(request_id)
        record = client.get(f"/explanations/{request_id}").json()
    assert record["explanation"]["status"] == "complete"
    shown = {entry["feature"]: entry["value"] for entry in record["explanation"]["top"][0]}
    assert shown["grade"] == "[email]"


def test_levels_that_were_allowed_are_kept_and_counted(tmp_path: Path) -> None:
    from lightgbm import LGBMClassifier

    from service.registry.work import Options

    X, y = mixed()
    X = X[["radius", "area"]].assign(contact=[EMAIL if n % 2 else "post" for n in range(len(X))])
    X["contact"] = X["contact"].astype(object)
    model = LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1)
    model.fit(X.astype({"contact": "category"}), y)
    registry = Registry(tmp_path / "registry")
    registry.register("allowed", model, X, y, options=Options(allow_columns=["contact"]))
    with live_app(tmp_path) as app:
        sent = instances_of(X.iloc[1:2])
        answer = app.client().predict(sent).json()
        record = app.client().get(f"/explanations/{answer['request_id']}").json()
        assert record["instances"] == sent
        assert findings(app, "email", "allow") == 1
        assert findings(app, "email", "redact") == 0


def test_planted_data_are_in_no_file_answer_log_or_metric(
    tmp_path: Path, open_models: Path, row: Instance
) -> None:
    shutil.copytree(open_models, tmp_path / "registry")
    with running_server(tmp_path, env=WITH_WORKER) as server:
        client = server.client()
        said = _plant(client, row)
        said += [client.get("/metrics"), client.get("/explanations")]
        live_files = _contents(tmp_path)
        server.stop()
        assert server.process.returncode == 0
    told = [reply.body + json.dumps(reply.headers).encode() for reply in said]
    for place, content in [*live_files, *_contents(tmp_path), *(("answer", t) for t in told)]:
        for planted in PLANTED:
            assert planted.encode() not in content, (place, planted)
    assert any(b"[email]" in content for content in told)
    assert {"serve.log", "evidence.db", "evidence.db-wal"} <= {name for name, _ in live_files}


def _plant(client: Client, row: Instance) -> list[Reply]:
    """Every way in: as inputs, comments, subjects, in what is refused."""
    replies = []
    for kind in ("missing", "ignore"):
        for text in (EMAIL, CARD, f"{CARD}/{EMAIL}"):
            reply = predict(client, kind, row | {"grade": text})
            place = f"/explanations/{reply.json()['request_id']}"
            comment = json.dumps({"rating": 2, "comment": f"{text} complained"}).encode()
            voted = client.request("POST", f"{place}/feedback", comment, JSON)
            assert voted.status == 204
            replies += [reply, voted, client.get(place), client.get(f"{place}/feedback")]
            body = json.dumps({"instances": [row], "subjects": [text]}).encode()
            path = f"/models/{kind}/predict?explain=true"
            named = client.request("POST", path, body, JSON)
            assert named.status == 200
            refused = predict(client, kind, row | {"radius": text})
            assert refused.status == 422
            wrong = json.dumps({"labels": [text]}).encode()
            label = client.request("POST", f"{place}/label", wrong, JSON)
            assert label.status == 422
            replies += [named, refused, label]
        numbered = predict(client, kind, row, **{"X-Request-ID": CARD.replace(" ", "")})
        assert numbered.status == 400
        replies.append(numbered)
    return replies


def _contents(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
