"""What is masked stays so when the version that answered is gone, or a row has been erased."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from disposals import ERASURE
from live_app import live_app
from masked_roles import CALLER, NUMBERS, PATH, VISIBLE, assert_masked, predicted, settings_of
from servers import JSON, wait_until
from tables import mixed

from service.disposal import erase
from service.errors import ForbiddenError
from service.registry import Registry
from service.registry.work import Options

Instance = dict[str, Any]


def test_without_its_version_a_record_is_masked_and_has_no_ranks(
    tmp_path: Path, two_models: Path, calm: Instance
) -> None:
    keys: dict[str, str] = {}
    shutil.copytree(two_models, tmp_path / "registry")
    with live_app(tmp_path, **settings_of(tmp_path, keys)) as live:
        path = predicted(live.client(keys["owner"]), calm).json()["explanation"]["links"]["self"]
        shutil.rmtree(tmp_path / "registry" / "mixed")
        wait_until(lambda: predicted(live.client(keys["owner"]), calm).status == 404)
        record = live.client(keys["support"]).get(path).json()
    assert record["explanation"]["visible"] is None
    assert record["explanation"]["values"] is None
    assert record["instances"][0]["grade"] is None


def test_another_version_under_its_number_ranks_nothing_and_unmasks_nothing(
    tmp_path: Path, two_models: Path, calm: Instance
) -> None:
    """Neither the record nor the repeated answer says more than without the version."""
    keys: dict[str, str] = {}
    shutil.copytree(two_models, tmp_path / "registry")
    named = {"X-Request-ID": "answered-1"}
    with live_app(tmp_path, **settings_of(tmp_path, keys)) as live:
        client = live.client(keys["support"])
        first = predicted(client, calm, **named).json()
        assert_masked(first["explanation"])
        shutil.rmtree(tmp_path / "registry" / "mixed")
        wait_until(lambda: predicted(client, calm).status == 404)
        register_another(tmp_path / "registry")
        wait_until(lambda: predicted(client, calm).status == 200)
        again = predicted(client, calm, **named)
        assert again.headers["idempotent-replay"] == "true"
        record = client.get("/explanations/answered-1").json()
    for found in (record, again.json()):
        assert found["model"]["digest"] == first["model"]["digest"]
        assert found["explanation"]["visible"] is None
        assert all(found["explanation"][name] is None for name in NUMBERS)
        assert all(prediction["probabilities"] is None for prediction in found["predictions"])


def register_another(registry: Path) -> None:
    from xgboost import XGBClassifier

    X, y = mixed()
    X = X.astype({"site": "category", "grade": "category"})
    model = XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1, enable_categorical=True)
    Registry(registry).register("mixed", model.fit(X, y), X, y, options=Options())


def test_ranks_stay_with_their_rows_when_one_was_erased(
    tmp_path: Path, two_models: Path, calm: Instance
) -> None:
    keys: dict[str, str] = {}
    opposite = {name: -calm[name] for name in VISIBLE if isinstance(calm[name], float)}
    rows = [calm, calm | opposite]
    body = json.dumps({"instances": rows, "subjects": ["anna", "bert"]}).encode()
    with live_app(tmp_path, registry=two_models, **settings_of(tmp_path, keys)) as live:
        reply = live.client(keys["owner"]).request("POST", f"{PATH}?explain=true", body, JSON)
        path = reply.json()["explanation"]["links"]["self"]
        first, second = live.client(keys["support"]).get(path).json()["explanation"]["visible"]
        assert first != second
        store, request_id = live.runtime.evidence.store, reply.json()["request_id"]
        record = store.record("default", request_id)
        assert record is not None
        (anna, _) = json.loads(record.decision.part("subjects"))
        erase(store, [("default", request_id)], replace(ERASURE, subject=anna))
        left = live.client(keys["support"]).get(path).json()["explanation"]["visible"]
    assert left == [None, second]


def test_of_an_erased_record_whose_model_is_gone_no_role_gets_the_proof(
    tmp_path: Path, two_models: Path
) -> None:
    """Which columns it had is known to nobody any more."""
    with live_app(tmp_path, registry=two_models, **settings_of(tmp_path, {})) as live:
        for roles, model, may in (
            ((), "gone", True),
            (("trusted",), "gone", False),
            (("trusted",), "mixed", True),
            (("support",), "mixed", False),
        ):
            caller = replace(CALLER, roles=roles)
            with nullcontext() if may else pytest.raises(ForbiddenError):
                live.runtime.views.check_proof(caller, model, None)
