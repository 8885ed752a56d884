"""Records computed again in this process: what is equal, and what is told where it is not."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from asks import ask_of, prepared_of
from tables import breast_cancer

from service.compute import NotHereError
from service.computing import Computer
from service.evidence import EvidenceStore
from service.metrics import Metrics
from service.planning import INLINE, NOTHING, QUEUED, Plan
from service.policy import ModelPolicy, Threshold, Vocabulary
from service.provenance import Taken
from service.registry import Registry
from service.registry.work import Options
from service.replaying import Recorded, replay, with_engine
from service.secrets import POLICY_KEYS, Keyring
from service.served import ServedModel
from service.settings import sqlite_url
from service.tasks import final_event, task_of

KEYRING = Keyring(b"k" * 32)
NAME = "breast_cancer"


def quiet(_: object) -> None: ...


@dataclass(frozen=True)
class Site:
    """A registry and a store, and the one model that is served from them."""

    registry: Registry
    store: EvidenceStore
    served: ServedModel

    def under(self, policy: ModelPolicy) -> "Site":
        return replace(self, served=replace(self.served, policy=policy))

    def asked(self, plan: Plan, *, explain: bool = True, method: str | None = None) -> Recorded:
        """A request of three rows, stored and completed."""
        model = self.served.model
        instances = [{**model.sample, "mean radius": 10.0 + row} for row in range(3)]
        body = model.codec.decode(orjson.dumps({"instances": instances}), max_instances=10)
        ask = ask_of(self.served, body, plan, explain=explain)
        prepared = prepared_of(self.served, ask)
        self.store.append(prepared.event)
        if plan is QUEUED:
            self.complete(method)
        return self.recorded()

    def complete(self, method: str | None) -> None:
        record = self.store.record("default", "request-1")
        assert record is not None
        task = replace(task_of(record, KEYRING, taken=Taken("w", 1, 0.0)), method=method)
        finished = Computer(self.registry).compute(task, quiet)
        self.store.append_final(final_event(record, finished))

    def recorded(self) -> Recorded:
        record = self.store.record("default", "request-1")
        assert record is not None
        return Recorded.from_bytes(Recorded.of(record).to_bytes())

    def replay(self, recorded: Recorded, keyring: Keyring = KEYRING) -> dict[str, Any]:
        report: dict[str, Any] = orjson.loads(
            orjson.dumps(replay(recorded, self.registry, keyring, quiet))
        )
        return report


@pytest.fixture
def site(tmp_path: Path, demo_registry: Path) -> Iterator[Site]:
    shutil.copytree(demo_registry, tmp_path / "registry")
    registry = Registry(tmp_path / "registry")
    served = ServedModel.of(registry.serving(NAME), Metrics(), retention_days=1)
    with EvidenceStore.open(sqlite_url(tmp_path / "evidence.db")) as store:
        yield Site(registry, store, served)


def registered_again(site: Site, **options: Any) -> None:
    """Another version under the same name and number."""
    from xgboost import XGBClassifier

    X, y = breast_cancer()
    trees = options.pop("trees", 40)
    classes = options.pop("classes", ("malignant", "benign"))
    model = XGBClassifier(n_estimators=trees, max_depth=4, learning_rate=0.2, n_jobs=1).fit(X, y)
    shutil.rmtree(Path(site.registry.path) / NAME)
    names = dict(enumerate(classes))
    chosen = Options(classes=classes, **options)
    site.registry.register(NAME, model, X, y.map(names), options=chosen)


@pytest.mark.parametrize("plan", [INLINE, QUEUED])
def test_an_explained_record_comes_out_byte_by_byte(site: Site, plan: Plan) -> None:
    report = site.replay(site.asked(plan))
    assert report["equal"], report
    same = {"equal": True, "largest_gap": None, "others": []}
    assert (report["predictions"], report["explanation"]) == (same, same)
    assert report["inputs"] == {"equal": True}
    assert report["differing_digests"] == report["differing_libraries"] == []
    assert report["recorded"] == report["running"]
    assert "xgboost-cpu" in report["running"] or "xgboost" in report["running"]


def test_a_prediction_alone_has_nothing_else_to_compare(site: Site) -> None:
    report = site.replay(site.asked(NOTHING, explain=False))
    assert (report["equal"], report["explanation"]) == (True, None)


def test_a_skipped_explanation_is_skipped_again(site: Site) -> None:
    report = site.replay(site.asked(Plan(None, "the queue is full")))
    assert (report["equal"], report["explanation"]["equal"]) == (True, True)


@pytest.mark.parametrize("method", ["permutation", "kernel", "lime", "interactions"])
def test_other_methods_come_out_byte_by_byte(site: Site, method: str) -> None:
    # The pending record names the method; here only the task did.
    recorded = site.asked(QUEUED, method=method)
    ask = orjson.loads(recorded.part("ask")) | {"method": method}
    report = site.replay(replace(recorded, parts={**recorded.parts, "ask": orjson.dumps(ask)}))
    assert report["equal"], report
    assert report["explanation"]["equal"]
    # As another method, it is another configuration and gives other numbers.
    report = site.replay(recorded)
    assert report["differing_digests"] == ["explainer_config_digest"]
    assert not report["explanation"]["equal"]


def test_a_pending_explanation_is_not_compared(site: Site) -> None:
    recorded = site.asked(QUEUED)
    report = site.replay(replace(recorded, final=None))
    assert (report["equal"], report["explanation"]) == (True, None)


Change = Callable[[dict[str, Any]], None]


def changed(recorded: Recorded, name: str, change: Change) -> Recorded:
    piece = orjson.loads(recorded.part(name))
    change(piece)
    return replace(recorded, parts={**recorded.parts, name: orjson.dumps(piece)})


def test_one_attribution_changed_in_its_last_digit_is_found(site: Site) -> None:
    def nudge(explanation: dict[str, Any]) -> None:
        explanation["values"][1][2][0] += 1e-15

    recorded = site.asked(INLINE)
    report = site.replay(changed(recorded, "explanation", nudge))
    assert not report["equal"]
    assert report["predictions"]["equal"]
    gap = report["explanation"]["largest_gap"]
    assert gap["pointer"] == "/values/1/2/0"
    assert 0 < gap["absolute"] < 3e-15


def test_a_changed_prediction_is_found(site: Site) -> None:
    def flip(predictions: Any) -> None:
        predictions[0]["label"] = "nobody"

    report = site.replay(changed(site.asked(NOTHING, explain=False), "predictions", flip))
    assert not report["equal"]
    assert report["predictions"]["others"] == ["/predictions/0/label"]


def test_rows_that_were_fed_otherwise_than_they_came_are_found(site: Site) -> None:
    def swap(fed: Any) -> None:
        fed[0][0], fed[0][1] = fed[0][1], fed[0][0]

    report = site.replay(changed(site.asked(INLINE), "fed", swap))
    assert (report["equal"], report["inputs"]) == (False, {"equal": False})
    assert report["explanation"]["equal"]


def test_rows_the_schema_refuses_are_a_reason(site: Site) -> None:
    report = site.replay(changed(site.asked(INLINE), "instances", lambda rows: rows[0].clear()))
    assert not report["equal"]
    assert "no valid input" in report["reason"]
    assert report["inputs"] == {"equal": False}


def test_a_record_whose_rows_were_erased_says_so(site: Site) -> None:
    def erase(rows: Any) -> None:
        rows[1] = None

    report = site.replay(changed(site.asked(INLINE), "instances", erase))
    assert (report["equal"], report["reason"]) == (False, "rows of this record were erased")


def test_another_library_version_is_named(site: Site) -> None:
    def age(provenance: dict[str, Any]) -> None:
        provenance["library_versions"]["numpy"] = "0.9"

    report = site.replay(changed(site.asked(INLINE), "provenance", age))
    assert report["equal"], "the bytes are what counts"
    assert report["differing_libraries"] == ["numpy"]
    assert report["recorded"]["numpy"] == "0.9" != report["running"]["numpy"]


def test_one_tree_less_is_another_digest_and_a_gap(site: Site) -> None:
    recorded = site.asked(INLINE)
    registered_again(site, trees=39)
    report = site.replay(recorded)
    assert not report["equal"]
    assert {"model_digest", "artifact_digest"} <= set(report["differing_digests"])
    assert "background_digest" not in report["differing_digests"]
    for part in ("predictions", "explanation"):
        gap = report[part]["largest_gap"]
        assert 1e-6 < gap["absolute"] < 1, "of one class's outputs, and not of columns' cells"


def test_another_background_changes_the_explanation_alone(site: Site) -> None:
    recorded = site.asked(QUEUED)
    registered_again(site, seed=1)
    report = site.replay(recorded)
    assert not report["equal"]
    assert {"model_digest", "background_digest"} <= set(report["differing_digests"])
    assert "artifact_digest" not in report["differing_digests"]
    assert report["predictions"]["equal"]
    assert report["explanation"]["largest_gap"]["absolute"] > 1e-6


def decided(site: Site) -> ModelPolicy:
    """A policy that decides by the probability of `benign`."""
    said = {"class": "benign", "at_least": 0.9, "name": "discharge", "otherwise": "look closer"}
    vocabulary = Vocabulary(
        site.served.model.schema, ("malignant", "benign"), ("malignant", "benign")
    )
    return ModelPolicy(
        version="sha256:1",
        rules=(),
        threshold=Threshold.of_json(said, vocabulary),
        review_size=0,
        key_of=lambda tenant: KEYRING.key(tenant, POLICY_KEYS),
        canary=0.0,
    )


@pytest.mark.parametrize("plan", [INLINE, QUEUED])
def test_a_decision_about_a_class_this_version_lacks_is_a_difference(
    site: Site, plan: Plan
) -> None:
    recorded = site.under(decided(site)).asked(plan)
    assert site.replay(recorded)["equal"]
    registered_again(site, classes=("M", "B"))
    report = site.replay(recorded)
    assert not report["equal"]
    assert "model_digest" in report["differing_digests"]
    assert "/predictions/0/decision" in report["predictions"]["others"]
    assert report["explanation"]["largest_gap"] is None, "the trees are the same"
    assert "/output_names/0" in report["explanation"]["others"]


def test_a_number_written_in_other_bytes_is_found(site: Site) -> None:
    recorded = site.asked(INLINE)
    explanation = recorded.part("explanation")
    whole = explanation.replace(b'"values":[[[', b'"values":[[[ ', 1)
    assert whole != explanation
    report = site.replay(replace(recorded, parts={**recorded.parts, "explanation": whole}))
    assert report["explanation"] == {"equal": False, "largest_gap": None, "others": [""]}
    assert not report["equal"]


def test_equal_numbers_of_another_version_are_not_equal(site: Site) -> None:
    recorded = site.asked(INLINE)
    registered_again(site)
    report = site.replay(recorded)
    assert report["predictions"]["equal"]
    assert report["explanation"]["equal"]
    assert (report["equal"], report["differing_digests"]) == (False, ["model_digest"])


def test_a_damaged_version_is_a_reason(site: Site) -> None:
    recorded = site.asked(INLINE)
    path = Path(site.registry.path) / NAME / "1" / "model.ubj"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    report = site.replay(recorded)
    assert not report["equal"]
    assert "model.ubj is not the file that was registered" in report["reason"]
    assert report["predictions"] is report["explanation"] is None


def test_a_version_that_is_gone_is_no_report(site: Site) -> None:
    recorded = site.asked(INLINE)
    shutil.rmtree(Path(site.registry.path) / NAME)
    with pytest.raises(NotHereError, match="no version 1 of model"):
        site.replay(recorded)


def test_another_secret_is_named_and_the_recorded_seeds_are_used(site: Site) -> None:
    recorded = site.asked(QUEUED, method="permutation")
    ask = orjson.loads(recorded.part("ask")) | {"method": "permutation"}
    recorded = replace(recorded, parts={**recorded.parts, "ask": orjson.dumps(ask)})
    report = site.replay(recorded, Keyring(b"other secret of 32 bytes, no key"))
    assert report["explanation"]["equal"]
    assert report["differing_digests"] == ["seed"]


def test_the_recorded_engine_computes(site: Site) -> None:
    walked = with_engine(site.served.model, "walk")
    assert (site.served.model.engine, walked.engine) == ("table", "walk")
    recorded = replace(site, served=replace(site.served, model=walked)).asked(INLINE)

    def is_walk(explanation: dict[str, Any]) -> None:
        explanation["engine"] = "walk"  # templates are the table's

    report = site.replay(changed(recorded, "explanation", is_walk))
    assert report["explanation"] == {"equal": True, "largest_gap": None, "others": []}
