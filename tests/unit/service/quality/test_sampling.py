"""Which explanations are measured: a keyed share, so many a minute, none while others wait."""

from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
from jobs import job

from service.metrics import QUALITY_MEASURES, QUALITY_OUTCOMES
from service.quality import QualitySampling, findings, sampling
from service.queue import Job, QueueFullError
from service.secrets import Keyring

KEYRING = Keyring(b"k" * 32)
IDS = [f"request-{i:05}" for i in range(20_000)]


@dataclass
class Queue:
    """As much of a JobQueue as is asked here."""

    depth: int = 0
    is_full: bool = False
    jobs: list[Job] = field(default_factory=list)

    async def submit(self, taken: Job) -> bool:
        if self.is_full:
            raise QueueFullError("full")
        self.jobs.append(taken)
        return True


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1000.0)
    monkeypatch.setattr(sampling, "monotonic", clock)
    return clock


def sampled(share: float, most: int = 10**6, queue: Any = None) -> QualitySampling:
    return QualitySampling(queue or Queue(), KEYRING, share, most)


def taken(quality: QualitySampling, tenant: str = "default") -> list[str]:
    return [name for name in IDS if quality.takes(tenant, name)]


def test_the_share_is_kept_and_follows_from_the_key_alone() -> None:
    found = taken(sampled(0.01))
    assert 150 < len(found) < 250
    assert taken(sampled(0.01)) == found
    assert set(found) < set(taken(sampled(0.05)))
    assert not set(found) & set(taken(sampled(0.01), "other")[:20]) > set(found)
    other = QualitySampling(Queue(), Keyring(b"o" * 32), 0.01, 10**6)  # type: ignore[arg-type]
    assert taken(other) != found


def test_all_or_none_may_be_measured() -> None:
    assert taken(sampled(1.0)) == IDS
    assert taken(sampled(0.0)) == []


def test_so_many_a_minute_at_most(clock: Clock) -> None:
    quality = sampled(1.0, 6)
    assert taken(quality) == IDS[:6]
    clock.now += 59.0
    assert taken(quality) == []
    clock.now += 1.0
    assert taken(quality) == IDS[:6]
    assert taken(sampled(1.0, 0)) == []


def test_none_while_the_queue_is_busy() -> None:
    queue = Queue(depth=sampling.BUSY_JOBS)
    quality = sampled(1.0, 6, queue)
    assert taken(quality) == []
    queue.depth -= 1
    assert taken(quality) == IDS[:6]


async def test_the_job_is_of_low_priority_beside_the_explanations_own() -> None:
    queue = Queue()
    await sampled(1.0, queue=queue).submit(job("r-1"))
    (measured,) = queue.jobs
    assert (measured.kind, measured.priority, measured.key) == ("quality", "low", job("r-1").key)
    assert measured.field != job("r-1").field


async def test_one_that_is_lost_is_no_loss() -> None:
    await sampled(1.0, queue=Queue(is_full=True)).submit(job("r-1"))


def test_metrics_know_every_measure_and_outcome() -> None:
    assert get_args(findings.Measure) == QUALITY_MEASURES
    assert {*get_args(findings.Outcome), "failed"} == set(QUALITY_OUTCOMES)
