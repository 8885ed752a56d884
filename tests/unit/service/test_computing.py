"""A task is a stored record's pieces; what comes back is what the inline lane would have said."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from asks import ask_of, prepared_of
from counted import observed_sum, total

from schemas import Answer
from service.compute import NotHereError
from service.computing import Computer
from service.delivery import final_answer
from service.evidence import AppendOutcome, EvidenceStore, Record
from service.metrics import Metrics
from service.planning import INLINE, QUEUED, Plan
from service.policy import ModelPolicy, ReasonsRule, Threshold
from service.policy.reasons import Coded
from service.preparing import Prepared
from service.provenance import Taken
from service.registry import Registry
from service.secrets import Keyring
from service.served import ServedModel
from service.settings import sqlite_url
from service.tasks import Finished, Task, count_finished, final_event, task_of

KEYRING = Keyring(b"k" * 32)
TAKEN = Taken("worker-1", 2, 0.5)


@pytest.fixture(scope="module")
def served(demo_registry: Path) -> ServedModel:
    return ServedModel.of(
        Registry(demo_registry).serving("breast_cancer"), Metrics(), retention_days=1
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(sqlite_url(tmp_path / "evidence.db")) as store:
        yield store


def answered(served: ServedModel, plan: Plan, *, rows: int = 3) -> Prepared:
    instances = [{**served.model.sample, "mean radius": 10.0 + row} for row in range(rows)]
    body = served.model.codec.decode(orjson.dumps({"instances": instances}), max_instances=1000)
    return prepared_of(served, ask_of(served, body, plan))


def pending(served: ServedModel, store: EvidenceStore, *, rows: int = 3) -> Record:
    store.append(answered(served, QUEUED, rows=rows).event)
    record = store.record("default", "request-1")
    assert record is not None
    return record


def computed(registry: Path, task: Task) -> Finished:
    """Through the bytes that two processes exchange."""
    finished = Computer(Registry(registry)).compute(Task.from_bytes(task.to_bytes()), quiet)
    return Finished.from_bytes(finished.to_bytes())


def quiet(_: object) -> None: ...


def test_the_final_answer_is_the_inline_one_but_for_its_lane(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    record = pending(served, store)
    task = task_of(record, KEYRING, taken=TAKEN)
    finished = computed(demo_registry, task)
    outcomes = store.append_final(final_event(record, finished))
    final = store.record("default", "request-1")
    assert final is not None
    assert outcomes.stored
    assert outcomes.counted
    later = Answer.model_validate_json(final_answer(final)).explanation
    inline = Answer.model_validate_json(answered(served, INLINE).answer).explanation
    assert later is not None
    assert inline is not None
    assert (later.lane, inline.lane) == ("queued", "inline")
    for name in ("values", "base_values", "outputs", "top", "method", "engine", "exact", "seed"):
        assert getattr(later, name) == getattr(inline, name), name
    header = orjson.loads(final.final.header if final.final else b"")
    assert (header["status"], header["exact"], header["engine"]) == ("complete", True, "table")


def test_reasons_are_told_by_the_stored_rule(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    """The child that computes them has no policy."""
    rule = ReasonsRule(
        adverse="recall",
        most=3,
        output="benign",
        sign=-1,
        codes={name: Coded(name, f"about {name}") for name in served.model.schema.names},
        cohort_digest=None,
    )
    policy = ModelPolicy(
        version="sha256:1",
        rules=(),
        threshold=Threshold("malignant", 0, 0.0, "recall", None),
        review_size=0,
        key_of=lambda _: b"k" * 32,
        canary=0.0,
        reasons=rule,
    )
    ruled = replace(served, policy=policy)
    record = pending(ruled, store)
    assert orjson.loads(record.part("explanation"))["reasons"] is None
    finished = computed(demo_registry, task_of(record, KEYRING, taken=TAKEN))
    found = orjson.loads(finished.explanation)["reasons"]
    inline = answered(ruled, INLINE)
    assert found == orjson.loads(inline.answer)["explanation"]["reasons"]
    assert [entry["status"] for entry in found] == ["given"] * 3
    assert finished.reasons == inline.reasons == (3, 0)


def test_a_pending_answer_has_no_numbers(served: ServedModel) -> None:
    explanation = Answer.model_validate_json(answered(served, QUEUED).answer).explanation
    assert explanation is not None
    assert (explanation.status, explanation.lane) == ("pending", "queued")
    assert explanation.values is None


def test_progress_is_told_up_to_the_last_row(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    told: list[Mapping[str, object]] = []
    task = task_of(pending(served, store, rows=150), KEYRING, taken=TAKEN)
    Computer(Registry(demo_registry)).compute(task, told.append)
    assert told == [{"rows_done": done, "rows": 150} for done in (0, 64, 128, 150)]


@pytest.mark.parametrize("method", ["permutation", "lime"])
def test_a_single_row_that_calls_the_model_shows_that_it_goes_on(
    served: ServedModel, store: EvidenceStore, demo_registry: Path, method: str
) -> None:
    told: list[Mapping[str, object]] = []
    task = replace(task_of(pending(served, store, rows=1), KEYRING, taken=TAKEN), method=method)
    finished = Computer(Registry(demo_registry)).compute(task, told.append)
    assert finished.reason is None
    assert len(told) > 5
    assert told[:-1] == [{"rows_done": 0, "rows": 1}] * (len(told) - 1)
    assert told[-1] == {"rows_done": 1, "rows": 1}


def test_pairs_are_computed_one_row_at_a_time(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    told: list[Mapping[str, object]] = []
    task = task_of(pending(served, store, rows=3), KEYRING, taken=TAKEN)
    paired = replace(task, method="interactions")
    assert Computer(Registry(demo_registry)).compute(paired, told.append).status == "complete"
    assert [facts["rows_done"] for facts in told] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", ["lime", "kernel"])
def test_what_the_model_raises_is_the_reason_of_a_failed_explanation(
    served: ServedModel,
    store: EvidenceStore,
    demo_registry: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    def refusing(*_: object) -> None:
        raise ValueError("5 planted inputs")

    task = replace(task_of(pending(served, store), KEYRING, taken=TAKEN), method=method)
    computer = Computer(Registry(demo_registry))
    computer.prepare()
    monkeypatch.setattr(type(served.model.native), "evaluate", refusing)
    finished = computer.compute(task, quiet)
    assert (finished.status, finished.reason) == ("failed", "the explainer failed (ValueError)")


def test_seeds_are_those_of_the_instances_alone(served: ServedModel, store: EvidenceStore) -> None:
    task = task_of(pending(served, store), KEYRING, taken=TAKEN)
    instances = [orjson.dumps(instance) for instance in task.instances]
    assert task.seeds == [KEYRING.seed("default", task.digest, data) for data in instances]
    assert len(set(task.seeds)) == 3
    assert all(0 <= seed < 1 << 53 for seed in task.seeds)
    assert KEYRING.seed("other", task.digest, instances[0]) != task.seeds[0]


def test_serving_versions_are_loaded_before_a_job_asks_for_them(
    served: ServedModel,
    store: EvidenceStore,
    demo_registry: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = task_of(pending(served, store), KEYRING, taken=TAKEN)
    computer = Computer(Registry(demo_registry))
    assert computer.prepare()
    assert not computer.prepare()
    monkeypatch.setattr(Registry, "load", no_loading)
    assert computer.compute(task, quiet).status == "complete"
    with pytest.raises(RuntimeError):
        Computer(Registry(demo_registry)).compute(task, quiet)


def no_loading(*_: object, **__: object) -> None:
    raise RuntimeError


def test_a_damaged_version_is_tried_once_and_keeps_no_other_from_being_loaded(
    demo_registry: Path, tmp_path: Path
) -> None:
    registry = Registry(tmp_path)
    for name in ("breast_cancer", "a_damaged_one"):
        shutil.copytree(demo_registry / "breast_cancer", tmp_path / name)
    for file in registry.layout.folder("a_damaged_one", 1).iterdir():
        file.write_bytes(b"no longer what it was")
    computer = Computer(registry)
    assert [computer.prepare() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("change", [{"version": 9}, {"digest": "sha256:0"}, {"model": "nobody"}])
def test_a_version_that_is_not_here_is_handed_back(
    served: ServedModel, store: EvidenceStore, demo_registry: Path, change: dict[str, Any]
) -> None:
    task = replace(task_of(pending(served, store), KEYRING, taken=TAKEN), **change)
    with pytest.raises(NotHereError):
        Computer(Registry(demo_registry)).compute(task, quiet)


def test_outputs_that_were_not_served_fail_the_explanation(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    task = task_of(pending(served, store), KEYRING, taken=TAKEN)
    task = replace(task, outputs=[[9.0] for _ in task.outputs])
    finished = computed(demo_registry, task)
    assert (finished.status, finished.reason) == ("failed", "additivity")
    assert orjson.loads(finished.explanation)["values"] is None
    metrics = Metrics()
    bound = metrics.bind("breast_cancer", finished.method)
    count_finished(bound, finished)
    assert total(bound.invariant_failures["additivity"]) == 1


def test_sizes_are_counted_per_instance_also_without_values(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    task = task_of(pending(served, store, rows=4), KEYRING, taken=TAKEN)
    finished = computed(demo_registry, replace(task, method="lime"))
    assert finished.status == "complete"
    metrics = Metrics()
    bound = metrics.bind("breast_cancer", finished.method)
    count_finished(bound, finished)
    assert observed_sum(bound.payload_size["queued"]) == len(finished.explanation) / 4


def test_what_fails_early_costs_what_it_took(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    """A model that is called explains row by row; of a hundred rows only the first was computed."""
    task = task_of(pending(served, store, rows=100), KEYRING, taken=TAKEN)
    wrong = replace(task, method="permutation", outputs=[[9.0] for _ in task.outputs])
    finished = computed(demo_registry, wrong)
    one = computed(demo_registry, replace(wrong, fed=wrong.fed[:1], instances=wrong.instances[:1]))
    assert (finished.status, finished.reason) == ("failed", "additivity")
    assert len(finished.tally.additivity) == 1
    assert finished.tally.cpu_seconds < 20 * max(one.tally.cpu_seconds, 0.001)


def test_a_method_that_cannot_explain_costs_what_finding_out_took(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    task = task_of(pending(served, store), KEYRING, taken=TAKEN)
    finished = computed(demo_registry, replace(task, method="integrated_gradients"))
    assert finished.status == "failed"
    assert 0 < finished.tally.cpu_seconds < 5
    assert orjson.loads(finished.provenance)["cpu_seconds"] > 0


def test_a_second_final_changes_nothing(
    served: ServedModel, store: EvidenceStore, demo_registry: Path
) -> None:
    record = pending(served, store)
    finished = computed(demo_registry, task_of(record, KEYRING, taken=TAKEN))
    assert store.append_final(final_event(record, finished)).stored
    again = store.append_final(final_event(record, finished))
    assert not again.stored
    assert not again.counted
    assert store.append(record_event(served)) is AppendOutcome.CONFLICT


def record_event(served: ServedModel) -> Any:
    return answered(served, QUEUED).event
