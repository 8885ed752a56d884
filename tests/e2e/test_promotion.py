"""A running service follows the registry: promotions, roll-backs, damage, new models."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers import Server, assert_becomes_ready, explaind, running_server, wait_until
from tables import breast_cancer, instances_of

from service.registry import RegisteredModel, Registry

FOLLOWED_WITHIN_SECONDS = 15.0  # polls each second; the rest is room for a busy machine
NAME = "swapped"

Run = Callable[..., None]


@pytest.fixture(scope="module")
def table() -> tuple[pd.DataFrame, pd.Series]:
    X, y = breast_cancer()
    return X.iloc[:, :5].rename(columns=lambda name: name.replace(" ", "_")), y


@pytest.fixture(scope="module")
def registered(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[pd.DataFrame, pd.Series]
) -> Path:
    """A registry with two versions that differ in every number; the first one serves."""
    from xgboost import XGBClassifier

    path = tmp_path_factory.mktemp("registered")
    for depth in (2, 4):
        model = XGBClassifier(n_estimators=5 * depth, max_depth=depth, n_jobs=1).fit(*table)
        Registry(path).register(NAME, model, *table)
    return path


@pytest.fixture
def folder(tmp_path: Path, registered: Path) -> Path:
    """A data directory with a copy of the registry."""
    shutil.copytree(registered, tmp_path / "registry")
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    def command(*arguments: str, exit_code: int = 0) -> None:
        done = explaind("models", *arguments, "--data-dir", str(folder))
        assert done.returncode == exit_code, done.stderr

    return command


@dataclass
class Expected:
    """What an answer of each version must be, all parts together."""

    models: dict[int, RegisteredModel]
    rows: np.ndarray

    def check(self, answer: dict[str, Any]) -> int:
        model = self.models[answer["model"]["version"]]
        assert answer["model"]["digest"] == model.digest
        assert model.explainer is not None
        served, explanation = model.native.predict(self.rows), model.explainer.explain(self.rows)
        scores = [list(p["probabilities"].values()) for p in answer["predictions"]]
        assert scores == served.scores.tolist()
        assert answer["explanation"]["outputs"] == served.outputs.tolist()
        assert answer["explanation"]["values"] == explanation.values.tolist()
        assert answer["explanation"]["background_digest"] == model.background.digest
        return model.version


@pytest.fixture
def expected(folder: Path, table: tuple[pd.DataFrame, pd.Series]) -> Expected:
    registry = Registry(folder / "registry")
    return Expected({v: registry.load(NAME, v) for v in (1, 2)}, table[0].iloc[:3].to_numpy())


@dataclass
class Load:
    """Clients that ask without pause and keep every answer."""

    server: Server
    instances: list[dict[str, object]]
    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[bytes] = field(default_factory=list)
    is_over: bool = False

    @contextmanager
    def running(self, clients: int = 3) -> Iterator["Load"]:
        threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.is_over = True
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        client = self.server.client()
        while not self.is_over:
            reply = client.predict(self.instances, path=f"/models/{NAME}/predict")
            if reply.status == 200:
                self.answers.append(json.loads(reply.body))
            else:
                self.failures.append(reply.body)

    def wait_for(self, version: int) -> float:
        """Seconds until an answer of the version comes."""
        start = time.monotonic()
        wait_until(lambda: self.answers[-1]["model"]["version"] == version, seconds=60)
        return time.monotonic() - start


@pytest.fixture
def load(folder: Path, table: tuple[pd.DataFrame, pd.Series]) -> Iterator[Load]:
    with running_server(folder) as server:
        with Load(server, instances_of(table[0].iloc[:3])).running() as load:
            wait_until(lambda: load.answers or load.failures)
            yield load
        assert load.failures == []


@pytest.mark.drill
def test_service_follows_promotion_and_rollback_and_never_mixes_versions(
    load: Load, run: Run, expected: Expected
) -> None:
    run("promote", NAME, "2")
    assert load.wait_for(2) < FOLLOWED_WITHIN_SECONDS
    run("rollback", NAME)
    assert load.wait_for(1) < FOLLOWED_WITHIN_SECONDS
    versions = [expected.check(answer) for answer in list(load.answers)]
    assert {1, 2} <= set(versions)


def test_damaged_version_is_not_promoted(load: Load, run: Run, folder: Path) -> None:
    (folder / "registry" / NAME / "2" / "golden.json").write_bytes(b"{}")
    run("promote", NAME, "2", exit_code=1)
    assert Registry(folder / "registry").layout.serving(NAME) == 1
    assert_becomes_ready(load.server.client())


@pytest.mark.drill
def test_version_damaged_after_its_promotion_leaves_the_old_one_serving(
    load: Load, folder: Path, expected: Expected
) -> None:
    (folder / "registry" / NAME / "2" / "golden.json").write_bytes(b"{}")
    Registry(folder / "registry").layout.set_serving(NAME, 2)
    client = load.server.client()
    wait_until(lambda: client.get("/readyz").json()["status"] == "degraded")
    assert client.get("/readyz").status == 200
    before = len(load.answers)
    wait_until(lambda: len(load.answers) > before + 10)
    assert {expected.check(answer) for answer in list(load.answers)[before:]} == {1}


@pytest.mark.drill
def test_garbage_in_the_serving_file_leaves_the_service_as_it_is(
    load: Load, run: Run, folder: Path
) -> None:
    pointer = folder / "registry" / NAME / "serving"
    pointer.write_bytes(b"\xff\xfe\x00garbage")
    wait_until(lambda: "model_refused" in load.server.log.read_text())
    assert load.answers[-1]["model"]["version"] == 1
    pointer.write_bytes(b"1\n")
    run("promote", NAME, "2")
    load.wait_for(2)


def test_model_registered_from_the_command_line_appears_while_running(
    load: Load, folder: Path, table: tuple[pd.DataFrame, pd.Series]
) -> None:
    from xgboost import XGBClassifier

    X, y = table
    XGBClassifier(n_estimators=3, max_depth=2).fit(X, y).save_model(folder / "model.ubj")
    X.assign(risk=y.map({0: "good", 1: "bad"})).to_csv(folder / "german_credit.csv", index=False)
    done = explaind(
        *("register", "german_credit", "--model", str(folder / "model.ubj")),
        *("--data", str(folder / "german_credit.csv")),
        *("--target", "risk", "--classes", "good,bad", "--data-dir", str(folder)),
    )
    assert done.returncode == 0, done.stderr
    assert "registered german_credit version 1" in done.stdout
    client = load.server.client()
    wait_until(
        lambda: client.get("/models/german_credit").status == 200, seconds=FOLLOWED_WITHIN_SECONDS
    )
    sample = client.get("/models/german_credit").json()["sample_request"]
    answer = client.predict(sample["instances"], path="/models/german_credit/predict").json()
    assert list(answer["predictions"][0]["probabilities"]) == ["good", "bad"]
    assert answer["explanation"]["output_names"] == ["bad"]
    assert answer["explanation"]["status"] == "complete"
