"""What is tried beside a serving version follows it: promotion ends it, a new policy binds it."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import orjson
import pytest
from policies import KEY
from tables import breast_cancer

from service.errors import InvalidInputError
from service.metrics import Metrics
from service.policies import Policies
from service.registry import Registry
from service.registry.rollouts import Rollout, end_rollout, read_rollout, start_rollout
from service.registry.work import Options
from service.secrets import Keyring
from service.serving import ServedModels

NAME = "breast_cancer"
POLICY = "[models.breast_cancer]\nrules = [{ when = 'column(\"mean radius\") > 10', rate = 0.5 }]"
MISFIT = "[models.breast_cancer]\nrules = [{ when = 'mean_radius > 10', rate = 0.5 }]"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Path:
    """A registry with three versions of one input; the first serves."""
    from xgboost import XGBClassifier

    path = tmp_path_factory.mktemp("three") / "registry"
    shutil.copytree(demo_registry, path)
    X, y = breast_cancer()
    names = {0: "malignant", 1: "benign"}
    for trees in (5, 10):
        model = XGBClassifier(n_estimators=trees, max_depth=2, n_jobs=1).fit(X, y)
        options = Options(classes=tuple(names.values()))
        Registry(path).register(NAME, model, X, y.map(names), options=options)
    return path


@pytest.fixture
def registry(three: Path, tmp_path: Path) -> Registry:
    shutil.copytree(three, tmp_path / "registry")
    return Registry(tmp_path / "registry")


def begun(registry: Registry, version: int, share: float = 0.2) -> None:
    start_rollout(registry.layout, NAME, Rollout.begun("canary", version, share))


def served(registry: Registry, policies: Policies | None = None) -> ServedModels:
    models = ServedModels(registry, Metrics(), default=None, retention_days=1, policies=policies)
    models.refresh()
    return models


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda registry: registry.promote(NAME, 2), "version 2 was promoted"),
        (lambda registry: registry.promote(NAME, 3), "version 3 was promoted"),
        (lambda registry: registry.rollback(NAME), "rolled back"),
    ],
    ids=["candidate", "another", "rollback"],
)
def test_another_serving_version_ends_what_is_tried(
    registry: Registry, change: Callable[[Registry], object], reason: str
) -> None:
    if reason == "rolled back":
        registry.promote(NAME, 3)
    begun(registry, 2)
    change(registry)
    found = read_rollout(registry.layout, NAME)
    assert found is not None
    assert (found.is_active, found.reason) == (False, reason)


def test_promoting_what_serves_already_ends_nothing(registry: Registry) -> None:
    begun(registry, 2)
    registry.promote(NAME, 1)
    found = read_rollout(registry.layout, NAME)
    assert found is not None
    assert found.is_active
    assert found.beside == 1


def test_a_damaged_rollout_keeps_nobody_from_promoting(registry: Registry) -> None:
    (registry.layout.root / NAME / "rollout").write_text("{")
    registry.promote(NAME, 2)
    assert registry.layout.serving(NAME) == 2


def test_a_candidate_is_tried_beside_no_version_but_the_one_it_was_begun_beside(
    registry: Registry,
) -> None:
    begun(registry, 2)
    models = served(registry)
    assert models.resolve(NAME).tried is not None
    registry.layout.set_serving(NAME, 3)  # as where the process ended before it ended the rollout
    models.refresh()
    assert models.resolve(NAME).tried is None


def test_what_is_begun_meanwhile_is_not_ended_in_its_place(registry: Registry) -> None:
    begun(registry, 2)
    before = read_rollout(registry.layout, NAME)
    assert before is not None
    begun(registry, 3)
    assert not end_rollout(registry.layout, NAME, "late", begun_at=before.started_at)
    now = read_rollout(registry.layout, NAME)
    assert now is not None
    assert (now.version, now.is_active) == (3, True)


def test_ending_waits_for_who_begins_something_else(registry: Registry) -> None:
    begun(registry, 2)
    before = read_rollout(registry.layout, NAME)
    assert before is not None
    ended: list[bool] = []

    def end() -> None:
        ended.append(end_rollout(registry.layout, NAME, "late", begun_at=before.started_at))

    with registry.layout.lock():
        thread = Thread(target=end)
        thread.start()
        thread.join(0.3)  # long enough to read what is there, if that is done without the lock
        other = before.model_copy(update={"version": 3, "started_at": datetime.now(UTC)})
        path = registry.layout.root / NAME / "rollout"
        path.write_text(other.model_dump_json())
    thread.join(30)
    assert ended == [False]
    assert read_rollout(registry.layout, NAME) == other


def _change(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(path.stat().st_mtime_ns + 1, path.stat().st_mtime_ns + 1))


def test_a_new_policy_binds_the_candidate_too_and_its_counts_stay(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    begun(registry, 2)
    models = served(registry, Policies(path, Keyring(KEY)))
    before = models.resolve(NAME).tried
    assert before is not None
    _change(path, POLICY.replace("0.5", "0.25"))
    models.refresh()
    after = models.resolve(NAME).tried
    assert after is not None
    assert after.candidate.policy is not None
    assert [rule.probability for rule in after.candidate.policy.rules] == [0.25]
    assert after.trial is before.trial
    assert after.candidate.tried is after
    assert not models.is_answering(before.candidate)


def test_a_candidate_that_misfits_the_new_policy_is_tried_no_more(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    begun(registry, 2)
    models = served(registry, Policies(path, Keyring(KEY)))
    _change(path, MISFIT)
    models.refresh()
    assert models.resolve(NAME).tried is None
    assert models.resolve(NAME).policy is not None
    assert models.policy_troubles == {"policy_misfits": [NAME]}


def test_a_canary_answers_half_of_the_requests_at_most(registry: Registry) -> None:
    with pytest.raises(InvalidInputError, match="50 %"):
        begun(registry, 2, 0.51)
    begun(registry, 2, 0.5)


def test_a_candidate_that_explains_nothing_is_not_tried_beside_one_that_does(
    registry: Registry,
) -> None:
    path = registry.layout.folder(NAME, 2) / "manifest.json"
    manifest = orjson.loads(path.read_bytes())
    manifest["explainer"]["method"] = None
    path.chmod(0o600)
    path.write_bytes(orjson.dumps(manifest))
    with pytest.raises(InvalidInputError, match="explains nothing"):
        begun(registry, 2)
