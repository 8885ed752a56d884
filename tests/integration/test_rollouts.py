"""A candidate beside the serving version: as a shadow, as a canary, and given up."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from commands import explaind
from faulty_parts import FailingModel, break_candidate, break_store
from live_app import LiveApp, live_app
from prometheus_client.parser import text_string_to_metric_families
from servers import Client, wait_until
from sqlalchemy import select
from tables import breast_cancer

from service.accesses import AccessFilter, listed
from service.disposal import Destruction, Order, erase, of_requests
from service.evidence.tables import events

Instance = dict[str, Any]
NAME = "breast_cancer"
ROLES = ("serving", "canary")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Path:
    """A registry with two versions of one input, and a third of another."""
    from xgboost import XGBClassifier

    from service.registry import Registry
    from service.registry.work import Options

    path = tmp_path_factory.mktemp("versions") / "registry"
    shutil.copytree(demo_registry, path)
    X, y = breast_cancer()
    names = {0: "malignant", 1: "benign"}
    for columns in (X, X.iloc[:, :4]):
        model = XGBClassifier(n_estimators=10, max_depth=2, n_jobs=1).fit(columns, y)
        options = Options(classes=tuple(names.values()))
        Registry(path).register(NAME, model, columns, y.map(names), options=options)
    return path


@pytest.fixture
def live(tmp_path: Path, versions: Path) -> Iterator[LiveApp]:
    shutil.copytree(versions, tmp_path / "registry")
    with live_app(tmp_path) as live:
        yield live


def rollout(live: LiveApp, *words: str) -> str:
    done = explaind("rollout", *words, "--data-dir", str(live.runtime.settings.data_dir))
    assert done.returncode == 0, done.stderr
    return done.stdout


def begun(live: LiveApp, mode: str, share: str) -> None:
    rollout(live, mode, NAME, "2", "--share", share)
    wait_until(lambda: live.runtime.models.all[NAME].tried is not None)


def tried(live: LiveApp) -> dict[tuple[str, str], float]:
    """By role and outcome, where there were any."""
    text = live.client().get("/metrics").body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["explain_rollout_requests"].samples
    return {(s.labels["role"], s.labels["outcome"]): s.value for s in samples if s.value}


def stored(live: LiveApp, event_type: str) -> list[Any]:
    with live.runtime.evidence.store.reading() as connection:
        return list(connection.execute(select(events).where(events.c.event_type == event_type)))


def version_of(client: Client, rows: list[Instance], request_id: str | None = None) -> int:
    headers = {} if request_id is None else {"X-Request-ID": request_id}
    reply = client.predict(rows[:1], headers=headers)
    assert reply.status == 200, reply.body
    assert reply.json()["explanation"]["status"] == "complete"
    return int(reply.json()["model"]["version"])


def test_a_shadow_answers_nobody_and_its_records_stand_apart(
    live: LiveApp, rows: list[Instance]
) -> None:
    client = live.client()
    begun(live, "shadow", "100")
    assert [version_of(client, rows[i:]) for i in range(10)] == [1] * 10
    wait_until(lambda: len(stored(live, "shadow")) == 10)
    assert {event.version for event in stored(live, "shadow")} == {2}
    assert {event.actor for event in stored(live, "shadow")} == {"service:shadow"}
    assert len(stored(live, "decision")) == 10
    listing = client.get(f"/explanations?model={NAME}").json()["items"]
    assert {item["model"]["version"] for item in listing} == {1}
    wait_until(lambda: tried(live) == {("serving", "ok"): 10, ("shadow", "ok"): 10})
    done = explaind("verify", "--data-dir", str(live.runtime.settings.data_dir))
    assert done.returncode == 0, done.stderr + done.stdout


def test_a_shadows_record_is_erased_with_the_request(live: LiveApp, rows: list[Instance]) -> None:
    begun(live, "shadow", "100")
    request_id = live.client().predict(rows[:1]).headers["x-request-id"]
    wait_until(lambda: stored(live, "shadow"))
    store = live.runtime.evidence.store
    order = Order("cli:test", "case-1", datetime.now(UTC))
    erase(store, of_requests(store, "default", [request_id]), Destruction("erasure", order))
    (event,) = stored(live, "shadow")
    assert event.payload is None


def test_no_failure_of_a_shadow_touches_an_answer_or_an_slo(
    live: LiveApp, rows: list[Instance]
) -> None:
    begun(live, "shadow", "100")
    break_candidate(live.runtime, NAME, FailingModel)
    client = live.client()
    assert [version_of(client, rows) for _ in range(5)] == [1] * 5
    wait_until(lambda: tried(live).get(("shadow", "error")) == 5)
    text = client.get("/metrics").body.decode()
    assert f'explain_predictions_total{{model="{NAME}",outcome="error"}} 0.0' in text
    assert 'stage="predict"' not in text
    assert stored(live, "shadow") == []


def test_what_a_shadow_cannot_keep_up_with_is_dropped_and_counted(
    live: LiveApp, rows: list[Instance]
) -> None:
    import threading

    begun(live, "shadow", "100")
    held = threading.Event()

    class Waiting(FailingModel):
        def predict(self, X: Any) -> Any:
            held.wait(60)
            return self.real.predict(X)

    break_candidate(live.runtime, NAME, Waiting)
    client = live.client()
    assert {version_of(client, rows) for _ in range(150)} == {1}
    dropped = tried(live)["shadow", "dropped"]
    held.set()
    assert dropped >= 150 - 64 - 32
    wait_until(lambda: tried(live).get(("shadow", "ok")) == 150 - dropped, seconds=30)


def test_a_canary_answers_its_share_and_the_same_request_in_the_same_way(
    live: LiveApp, rows: list[Instance]
) -> None:
    begun(live, "canary", "30")
    client = live.client()
    names = [f"request-{i}" for i in range(200)]
    by = {name: version_of(client, rows, name) for name in names}
    share = sum(version == 2 for version in by.values()) / len(by)
    assert 0.15 < share < 0.45
    assert {name: version_of(client, rows, name) for name in names} == by
    chosen = next(name for name, version in by.items() if version == 2)
    record = client.get(f"/explanations/{chosen}").json()
    assert record["model"]["version"] == 2
    served = live.runtime.models.all[NAME]
    assert served.tried is not None
    digest = served.tried.candidate.model.digest
    assert record["provenance"]["model_digest"] == digest
    of_canary = list(by.values()).count(2)
    assert tried(live) == {("serving", "ok"): 200 - of_canary, ("canary", "ok"): of_canary}
    text = client.get("/metrics").body.decode()
    assert f'alias="canary",digest="{digest}"' in text
    assert f'lane="inline",model="{NAME}",outcome="served",role="canary"' in text


def test_a_raised_share_keeps_those_who_had_the_canary(live: LiveApp) -> None:
    choose = live.runtime.predicting.rollouts.chosen
    names = [f"request-{i}" for i in range(300)]
    by_share = []
    for share in ("10", "40"):
        begun(live, "canary", share)
        wait_until(lambda s=share: _share(live) == float(s) / 100)
        served = live.runtime.models.all[NAME]
        by_share.append({n for n in names if choose(served, "default", n) is not served})
    few, many = by_share
    assert few < many


def _share(live: LiveApp) -> float | None:
    found = live.runtime.models.all[NAME].tried
    return None if found is None else found.rollout.share


def test_a_canary_that_cannot_predict_is_given_up_and_no_client_notices(
    live: LiveApp, rows: list[Instance]
) -> None:
    begun(live, "canary", "50")
    break_candidate(live.runtime, NAME, FailingModel)
    client = live.client()
    for _ in range(400):
        assert version_of(client, rows) == 1
        if live.runtime.models.all[NAME].tried is None:
            break
    assert live.runtime.models.all[NAME].tried is None
    wait_until(lambda: "rolled back: errors: " in rollout(live, "status", NAME))
    counts = tried(live)
    assert counts["canary", "error"] == 20
    text = client.get("/metrics").body.decode()
    assert f'explain_rollbacks_total{{model="{NAME}"}} 1.0' in text
    assert f'explain_predictions_total{{model="{NAME}",outcome="error"}} 0.0' in text
    wanted = _sum(text, "explain_explanations_wanted")
    assert wanted == _sum(text, "explain_explanations", outcome="served") > 20
    store = live.runtime.evidence.store
    wait_until(lambda: any(e["event_type"] == "access/rollback" for e in _accesses(store)))
    (told,) = (e for e in _accesses(store) if e["event_type"] == "access/rollback")
    assert (told["model"], told["version"]) == (NAME, 2)


def test_a_store_that_is_away_fails_a_canarys_requests_as_the_others(
    live: LiveApp, rows: list[Instance]
) -> None:
    """Nobody answers instead: it is the client's failure, and nothing the candidate did."""
    begun(live, "canary", "50")
    break_store(live.runtime)
    names = [f"away-{i:04}" for i in range(12)]
    choose, served = live.runtime.predicting.rollouts.chosen, live.runtime.models.all[NAME]
    n_of_canary = sum(choose(served, "default", name) is not served for name in names)
    assert 0 < n_of_canary < len(names)
    client = live.client()
    for name in names:
        assert client.predict(rows[:1], headers={"X-Request-ID": name}).status == 503
    text = client.get("/metrics").body.decode()
    assert _sum(text, "explain_predictions", outcome="error") == len(names)
    assert _sum(text, "explain_errors", stage="store") == len(names)
    wanted = {role: _sum(text, "explain_explanations_wanted", role=role) for role in ROLES}
    assert wanted == {"serving": len(names) - n_of_canary, "canary": n_of_canary}
    failed = {
        role: _sum(text, "explain_explanations", role=role, outcome="failed") for role in ROLES
    }
    assert failed == wanted
    assert tried(live) == {}


def _sum(text: str, family: str, **labels: str) -> float:
    """Of one model's counters, whatever their other labels."""
    (found,) = (each for each in text_string_to_metric_families(text) if each.name == family)
    wanted = {"model": NAME, **labels}.items()
    return sum(
        s.value for s in found.samples if s.name.endswith("_total") and wanted <= s.labels.items()
    )


def _accesses(store: Any) -> list[Any]:
    return list(listed(store, AccessFilter()))


def test_a_stopped_rollout_leaves_the_serving_version_alone(
    live: LiveApp, rows: list[Instance]
) -> None:
    begun(live, "canary", "50")
    client = live.client()
    assert {version_of(client, rows) for _ in range(30)} == {1, 2}
    rollout(live, "stop", NAME)
    wait_until(lambda: live.runtime.models.all[NAME].tried is None)
    assert {version_of(client, rows) for _ in range(30)} == {1}
    status = orjson.loads(rollout(live, "status", NAME, "--json"))
    assert status["reason"] == "stopped by command"


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("canary", NAME, "1"), 4, "serves already"),
        (("canary", NAME, "3"), 4, "input schema"),
        (("shadow", NAME, "9"), 3, "no version 9"),
        (("canary", "none", "1"), 3, "no model"),
        (("stop", NAME), 3, "being tried"),
        (("canary", NAME, "2", "--share", "0"), 2, ""),
        (("canary", NAME, "2", "--share", "51"), 2, ""),
    ],
    ids=["serving", "schema", "version", "name", "stop", "share", "half"],
)
def test_what_cannot_be_tried_is_refused(
    versions: Path, words: tuple[str, ...], code: int, reason: str
) -> None:
    done = explaind("rollout", *words, "--registry", str(versions))
    assert done.returncode == code, done.stderr
    assert reason in done.stderr


def _report(live: LiveApp) -> Any:
    return orjson.loads(rollout(live, "report", NAME))


def test_a_shadows_report_compares_answers_to_the_same_requests(
    live: LiveApp, rows: list[Instance]
) -> None:
    begun(live, "shadow", "100")
    client = live.client()
    for i in range(20):
        version_of(client, rows[i:])
    withheld = client.predict(rows[:1]).headers["x-request-id"]
    wait_until(lambda: len(stored(live, "shadow")) == 21)
    place = ("--data-dir", str(live.runtime.settings.data_dir))
    put = explaind("quarantine", "--request-id", withheld, "--reason", "case-3", *place)
    assert put.returncode == 0, put.stderr
    found = _report(live)
    assert (found["mode"], found["candidate"]["version"]) == ("shadow", 2)
    assert found["serving"]["requests"] == found["candidate"]["requests"] == 20
    assert found["serving"]["explained"] == found["candidate"]["explained"] == 20
    comparison = found["comparison"]
    assert comparison["pairs"] == 20
    assert 0 < comparison["mean_gap"] < 0.3
    assert 0.3 < comparison["attribution_correlation"] < 1
    assert comparison["p_failed"] == 1


def test_a_canarys_report_has_both_versions_shares_of_the_requests(
    live: LiveApp, rows: list[Instance]
) -> None:
    begun(live, "canary", "50")
    client = live.client()
    by = [version_of(client, rows[i % 60 :]) for i in range(60)]
    found = _report(live)
    assert found["serving"]["requests"] == by.count(1)
    assert found["candidate"]["requests"] == by.count(2)
    names = {"score_psi", "score_psi_null", "p_failed", "spearman", "share_shift"}
    assert set(found["comparison"]) == names
    expected = 9 / by.count(1) + 9 / by.count(2)
    assert found["comparison"]["score_psi_null"] == pytest.approx(expected)


def test_erasing_one_subject_takes_his_part_of_a_shadow_too(
    live: LiveApp, rows: list[Instance]
) -> None:
    begun(live, "shadow", "100")
    client = live.client()
    body = orjson.dumps({"instances": rows[:2], "subjects": ["ann", "bob"]})
    reply = client.request(
        "POST", "/predict?explain=true", body, {"Content-Type": "application/json"}
    )
    assert reply.status == 200, reply.body
    wait_until(lambda: stored(live, "shadow"))
    (before,) = stored(live, "shadow")
    place = ("--data-dir", str(live.runtime.settings.data_dir))
    done = explaind("erase", "--subject", "ann", "--reason", "case-2", "--yes", *place)
    assert done.returncode == 0, done.stderr
    (after,) = stored(live, "shadow")
    assert 0 < len(after.payload) < len(before.payload)
    assert _report(live)["candidate"] == {"version": 2, "requests": 0}


def test_a_shadows_report_goes_on_past_a_page(
    live: LiveApp, rows: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.gate import trials
    from service.registry.rollouts import read_rollout

    begun(live, "shadow", "100")
    client = live.client()
    for i in range(7):
        version_of(client, rows[i:])
    wait_until(lambda: len(stored(live, "shadow")) == 7)
    monkeypatch.setattr(trials, "PAGE", 2)
    registered = read_rollout(live.runtime.models.registry.layout, NAME)
    assert registered is not None
    store = live.runtime.evidence.store
    for most in (7, 5):
        found: Any = trials.trial_document(store, "default", NAME, registered, most=most)
        assert found["candidate"]["requests"] == found["comparison"]["pairs"] == most
