"""What a worker makes of a job and its record, and what it says of itself in the end."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from asks import ask_of, prepared_of
from sqlalchemy import select

from service.compute import Finished
from service.computing import Computer, explain_task
from service.delivery import job_of
from service.drift.bins import Bins
from service.drift.explained import ExplainedTap
from service.drift.tallying import Tallies
from service.evidence import EvidenceLog, EvidenceStore
from service.evidence.tables import events
from service.keystore import Kek, KeyStore
from service.metrics import Metrics
from service.planning import INLINE, QUEUED, Plan
from service.quality import QualitySampling
from service.queue import Claim, Job
from service.registry import Registry
from service.registry.layout import Layout
from service.replaying import Recorded, replay
from service.secrets import Keyring
from service.served import ServedModel
from service.settings import sqlite_url
from service.tasks import Task
from service.worker.canaries import CanaryAssignment
from service.worker.explanations import ExplanationAssignment, ExplanationWork, bind_serving
from service.worker.qualities import QualityAssignment
from service.worker.work import Absent, GivenUp, Uncomputable

KEYRING = Keyring(b"k" * 32)


@pytest.fixture(scope="module")
def served(demo_registry: Path) -> ServedModel:
    model = Registry(demo_registry).serving("breast_cancer")
    return ServedModel.of(model, Metrics(), retention_days=1)


@pytest.fixture
async def evidence(tmp_path: Path) -> AsyncIterator[EvidenceLog]:
    log = await EvidenceLog.open(sqlite_url(tmp_path / "evidence.db"))
    yield log
    await log.close()


async def stored(
    served: ServedModel,
    evidence: EvidenceLog,
    plan: Plan,
    name: str = "request-1",
    *,
    is_counted: bool = True,
) -> Job:
    """The job of a request that was answered like that."""
    body = served.model.codec.decode(
        orjson.dumps({"instances": [served.model.sample]}), max_instances=1
    )
    ask = ask_of(served, body, plan, request_id=name, is_counted=is_counted)
    prepared = prepared_of(served, ask)
    await evidence.append(prepared.event)
    return job_of(prepared.event, served.model.digest, priority="high")


def work_over(evidence: EvidenceLog) -> ExplanationWork:
    return ExplanationWork(evidence, KEYRING, Metrics(), "worker-9", environment={})


def claim_of(job: Job, *, deliveries: int = 1, queued_ago: float = 0.0) -> Claim:
    return Claim(job, f"{round((time.time() - queued_ago) * 1000)}-0", deliveries)


async def test_a_task_says_who_takes_it_how_often_and_after_how_long(
    served: ServedModel, evidence: EvidenceLog
) -> None:
    job = await stored(served, evidence, QUEUED)
    claim = claim_of(job, deliveries=3, queued_ago=20.0)
    (found,) = await work_over(evidence).fetch([claim])
    assert isinstance(found, ExplanationAssignment)
    taken = Task.from_bytes(found.task).taken
    assert (taken.worker, taken.attempt) == ("worker-9", 3)
    assert 20 <= taken.queue_seconds < 30


@pytest.mark.parametrize(
    "change", [{"digest": "sha256:0"}, {"version": 2}, {"method": "lime"}, {"model": "other"}]
)
async def test_a_job_that_names_another_than_its_record_is_not_computed(
    served: ServedModel, evidence: EvidenceLog, change: dict[str, Any]
) -> None:
    job = await stored(served, evidence, QUEUED)
    claims = [claim_of(replace(job, **change)), claim_of(job)]
    wrong, right = await work_over(evidence).fetch(claims)
    assert wrong is Absent.UNKNOWN
    assert isinstance(right, ExplanationAssignment)


async def test_a_record_that_cannot_be_read_ends_alone_and_says_why(
    served: ServedModel, tmp_path: Path
) -> None:
    url = sqlite_url(tmp_path / "evidence.db")
    with KeyStore.open(sqlite_url(tmp_path / "keys.db"), Kek(bytes(32))) as keys:
        log = await EvidenceLog.open(url, keys=keys)
        lost = await stored(served, log, QUEUED)
        with EvidenceStore.open(url) as store, store.reading() as connection:
            keys.destroy([connection.execute(select(events.c.record_key)).scalar_one()])
        whole = await stored(served, log, QUEUED, "request-2")
        work = work_over(log)
        ended, computed = await work.fetch([claim_of(lost), claim_of(whole)])
        assert isinstance(computed, ExplanationAssignment)
        assert isinstance(ended, Uncomputable)
        assert "key missing" in ended.reason
        for _ in range(2):
            await ended.assignment.store(GivenUp("failed", ended.reason))
        assert await work.fetch([claim_of(lost)]) == [Absent.FINAL]
        with EvidenceStore.open(url, keys=keys) as store, store.reading() as connection:
            (final,) = connection.execute(
                select(events).where(events.c.event_type == "explanation")
            ).all()
            (unsealed,) = store.sealer.open([final])
        await log.close()
    assert unsealed is not None
    explanation = orjson.loads(unsealed.payload)["explanation"]
    assert (explanation["status"], "key missing" in explanation["reason"]) == ("failed", True)


async def test_a_canary_is_of_what_is_complete(served: ServedModel, evidence: EvidenceLog) -> None:
    job = await stored(served, evidence, INLINE)
    explain, check = await work_over(evidence).fetch(
        [claim_of(job), claim_of(replace(job, kind="canary"))]
    )
    assert explain is Absent.FINAL
    assert isinstance(check, CanaryAssignment)
    assert check.method == "tree_interventional"


async def test_a_canary_of_what_is_pending_is_dropped(
    served: ServedModel, evidence: EvidenceLog
) -> None:
    job = await stored(served, evidence, QUEUED)
    assert await work_over(evidence).fetch([claim_of(replace(job, kind="canary"))]) == [
        Absent.FINAL
    ]


async def test_an_explanation_is_measured_by_its_own_method_and_seed(
    served: ServedModel, evidence: EvidenceLog
) -> None:
    job = replace(await stored(served, evidence, INLINE), kind="quality")
    first, again = await work_over(evidence).fetch([claim_of(job), claim_of(job)])
    assert isinstance(first, QualityAssignment)
    assert isinstance(again, QualityAssignment)
    assert first.task == again.task
    assert first.sample.method == "tree_interventional"
    assert len(first.sample.fed) == len(first.sample.values) == 30
    assert first.sample.background_digest == served.model.background.digest


async def test_what_is_pending_is_not_measured(served: ServedModel, evidence: EvidenceLog) -> None:
    job = await stored(served, evidence, QUEUED)
    assert await work_over(evidence).fetch([claim_of(replace(job, kind="quality"))]) == [
        Absent.FINAL
    ]


@dataclass
class Queue:
    depth: int = 0
    jobs: list[Job] = field(default_factory=list)

    async def submit(self, job: Job) -> bool:
        self.jobs.append(job)
        return True


@pytest.mark.parametrize("is_given_up", [False, True])
async def test_what_a_worker_has_explained_is_of_the_sample_too(
    served: ServedModel, evidence: EvidenceLog, demo_registry: Path, *, is_given_up: bool
) -> None:
    job, queue = await stored(served, evidence, QUEUED), Queue()
    work = work_over(evidence)
    work.quality = QualitySampling(queue, KEYRING, 1.0, 1)  # type: ignore[arg-type]
    (found,) = await work.fetch([claim_of(job)])
    assert isinstance(found, ExplanationAssignment)
    computer = Computer(Registry(demo_registry))
    body = computer.compute(Task.from_bytes(found.task), lambda _: None).to_bytes()
    ending = GivenUp("failed", "why") if is_given_up else Finished(body, 0.1, 0.1)
    await found.store(ending)
    await found.store(ending)
    expected = [] if is_given_up else [replace(job, kind="quality", priority="low")]
    assert queue.jobs == expected
    for measured in expected:
        (sample,) = await work.fetch([claim_of(measured)])
        assert isinstance(sample, QualityAssignment)


def test_a_workers_series_of_serving_versions_begin_at_zero(
    tmp_path: Path, demo_registry: Path
) -> None:
    metrics = Metrics()
    bind_serving(metrics, Layout(tmp_path))
    labels = {"model": "breast_cancer", "role": "serving", "lane": "queued", "outcome": "stored"}
    assert metrics.registry.get_sample_value("explain_explanations_total", labels) is None
    bind_serving(metrics, Layout(demo_registry))
    assert metrics.registry.get_sample_value("explain_explanations_total", labels) == 0


async def test_what_was_given_up_says_by_whom_and_is_not_compared_by_a_replay(
    served: ServedModel, evidence: EvidenceLog, demo_registry: Path
) -> None:
    job = await stored(served, evidence, QUEUED)
    (found,) = await work_over(evidence).fetch([claim_of(job, deliveries=4)])
    assert isinstance(found, ExplanationAssignment)
    await found.store(GivenUp("dead", "3 deliveries ended without a result"))
    value = found.metrics.registry.get_sample_value
    failed = {"model": "breast_cancer", "stage": "explain", "type": "WorkerGaveUp"}
    assert value("explain_errors_total", failed) == 1
    lane = {"model": "breast_cancer", "role": "serving", "lane": "queued", "outcome": "dead"}
    assert value("explain_explanations_total", lane) == 1
    record = await evidence.record(*job.key)
    assert record is not None
    assert record.final is not None
    provenance = orjson.loads(record.final.part("provenance"))
    assert (provenance["worker"], provenance["attempt"]) == ("worker-9", 4)
    assert "checks" not in record.final.parts
    report = replay(Recorded.of(record), Registry(demo_registry), KEYRING, lambda _: None)
    assert (report["equal"], report["explanation"]) == (True, None)


async def test_drift_sees_what_was_asked_live_by_the_versions_own_method(
    served: ServedModel, evidence: EvidenceLog, demo_registry: Path
) -> None:
    seen: list[int] = []
    for name, is_counted in (("live", True), ("bulk", False)):
        job = await stored(served, evidence, QUEUED, name, is_counted=is_counted)
        work = work_over(evidence)
        tallies = Tallies(lambda _: None)
        work.tap = ExplainedTap(tallies, Registry(demo_registry).layout)
        (found,) = await work.fetch([claim_of(job)])
        assert isinstance(found, ExplanationAssignment)
        task = Task.from_bytes(found.task)
        done = explain_task(served.model, served.templates, task, lambda _: None)
        await found.store(Finished(done.to_bytes(), 0.1, 0.1))
        tallies.count()
        seen.append(sum(int(window.tally[Bins.EXPLAINED]) for window in tallies.unsaved().values()))
    assert seen == [1, 0]
