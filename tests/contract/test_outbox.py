"""What is pending in the evidence store and not in the queue gets there, or gets its end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from decisions import change, final, pending
from later import jobs_in
from polling import until
from sqlalchemy import select
from valkey_server import Valkey

from service.evidence import DecisionEvent, EvidenceLog, EvidenceStore, laid_out
from service.evidence.tables import events
from service.keystore import Kek, KeyStore
from service.metrics import Metrics
from service.outbox import Outbox
from service.queue import JobQueue

ASK = b'{"top":5,"method":"exact","priority":"low","answer_by":null}'


def waiting(request_id: str, *, seconds: float = 10, tenant: str = "default") -> DecisionEvent:
    """A decision that has been pending for so long."""
    received_at = datetime.now(UTC) - timedelta(seconds=seconds)
    pieces = [b'{"ask":', ASK, b',"explanation":', b'{"values":null}', b',"provenance":', b"{}"]
    payload, parts = laid_out([*pieces, b"}"], ["ask", "explanation", "provenance"])
    event = pending(request_id, tenant=tenant)
    return replace(
        event, received_at=received_at, completed_at=received_at, payload=payload, parts=parts
    )


@dataclass
class Site:
    log: EvidenceLog
    queue: JobQueue
    valkey: Valkey

    def outbox(self, *, deadline_seconds: float = 300, queue: JobQueue | None = None) -> Outbox:
        deadline = timedelta(seconds=deadline_seconds)
        return Outbox(self.log, queue or self.queue, Metrics(), deadline)

    def jobs(self) -> dict[str, Any]:
        with self.valkey.client() as redis:
            return jobs_in(redis)


@pytest.fixture
async def site(url: str, queue: JobQueue, valkey: Valkey) -> AsyncIterator[Site]:
    with valkey.client() as redis:
        redis.flushall()
    log = await EvidenceLog.open(url)
    yield Site(log, queue, valkey)
    await log.close()


def counted(outbox: Outbox, outcome: str) -> float:
    name, labels = "explain_explanations_total", {"model": "credit", "role": "serving"}
    value = outbox.metrics.registry.get_sample_value(
        name, labels | {"lane": "queued", "outcome": outcome}
    )
    return value or 0.0


async def test_what_the_queue_never_took_is_queued_once(site: Site) -> None:
    await site.log.append(waiting("lost-00001", tenant="north"))
    await asyncio.gather(*(site.outbox().sweep() for _ in range(3)))
    job = site.jobs()["lost-00001"]
    assert (job["tenant"], job["model"], job["version"]) == ("north", "credit", 3)
    assert (job["priority"], job["method"]) == ("low", "exact")
    assert job["digest"] == "sha256:" + "0" * 64
    assert len(site.jobs()) == 1


async def test_a_sweep_after_the_first_leaves_young_ones_to_their_request(site: Site) -> None:
    outbox = site.outbox()
    await outbox.sweep()
    young, old = waiting("young-0001", seconds=1), waiting("old-000001", seconds=6)
    await asyncio.gather(site.log.append(young), site.log.append(old))
    await outbox.sweep()
    assert set(site.jobs()) == {"old-000001"}


async def test_what_is_final_is_left_alone(site: Site) -> None:
    event = waiting("final-0001", seconds=400)
    await site.log.append(event)
    await site.log.append_final(final(event))
    outbox = site.outbox()
    await outbox.sweep()
    assert site.jobs() == {}
    assert counted(outbox, "timeout") == 0


async def test_an_emptied_queue_is_filled_again(site: Site) -> None:
    await asyncio.gather(*(site.log.append(waiting(f"request-{n:03}")) for n in range(200)))
    outbox = site.outbox()
    await outbox.sweep()
    assert len(site.jobs()) == 200
    with site.valkey.client() as redis:
        redis.flushall()
    await outbox.sweep()
    assert len(site.jobs()) == 200


async def test_more_than_one_page_is_queued(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.outbox.PAGE", 7)
    same = waiting("same-time1")
    events = [replace(same, request_id=f"same-{n:04}", event_id=f"same-{n:04}") for n in range(8)]
    events += [waiting(f"request-{n:03}", seconds=10 + n) for n in range(20)]
    await asyncio.gather(*(site.log.append(event) for event in events))
    async with asyncio.timeout(10):
        await site.outbox().sweep()
    assert len(set(site.jobs()) - {event.request_id for event in events[:8]}) == 20


async def test_a_full_queue_is_asked_a_little_each_time(site: Site) -> None:
    await asyncio.gather(*(site.log.append(waiting(f"request-{n:03}")) for n in range(300)))
    small = await JobQueue.open(site.valkey.url, max_queue=10)
    outbox = site.outbox(queue=small)
    await outbox.sweep()
    assert len(site.jobs()) == 8  # of low priority; the rest is left to what somebody waits for
    await outbox.sweep()
    assert len(site.jobs()) == 8
    await small.close()


async def test_a_queue_that_is_away_gets_everything_once_it_is_back(
    site: Site, valkey: Valkey
) -> None:
    await asyncio.gather(*(site.log.append(waiting(f"request-{n:03}")) for n in range(20)))
    outbox = site.outbox()
    valkey.freeze()
    try:
        await outbox.sweep()
        assert not site.queue.is_available
        await outbox.sweep()
    finally:
        valkey.thaw()
    await until(lambda: site.queue.is_available)
    await outbox.sweep()
    assert len(site.jobs()) == 20


async def test_a_late_one_is_counted_once_by_whoever_is_first(site: Site) -> None:
    await site.log.append(waiting("late-00001", seconds=301))
    await site.log.append(waiting("early-0001", seconds=290))
    outboxes = [site.outbox() for _ in range(4)]
    for _ in range(2):
        await asyncio.gather(*(outbox.sweep() for outbox in outboxes))
    assert sum(counted(outbox, "timeout") for outbox in outboxes) == 1
    assert set(site.jobs()) == {"late-00001", "early-0001"}


async def test_a_deadline_shorter_than_the_grace_is_counted_when_it_is_over(site: Site) -> None:
    outbox = site.outbox(deadline_seconds=1)
    await outbox.sweep()
    await site.log.append(waiting("late-00001", seconds=2))
    await outbox.sweep()
    assert counted(outbox, "timeout") == 1


@pytest.mark.parametrize("was_late", [False, True])
async def test_after_two_days_it_is_given_up_with_a_reason(site: Site, *, was_late: bool) -> None:
    event = waiting("hopeless-1", seconds=49 * 3600)
    await site.log.append(event)
    if was_late:
        (found,) = await site.log.pending(since=event.received_at, until=datetime.now(UTC), limit=9)
        assert await site.log.mark_timeout(found, actor="outbox")
    outboxes = [site.outbox() for _ in range(4)]
    await asyncio.gather(*(outbox.sweep() for outbox in outboxes))
    record = await site.log.record("default", "hopeless-1")
    assert record is not None
    assert record.status == "failed"
    explanation = json.loads(record.part("explanation"))
    assert explanation["status"] == "failed"
    assert explanation["reason"] == "no worker explained it within 48 hours"
    assert sum(counted(outbox, "dead") for outbox in outboxes) == (0 if was_late else 1)
    assert sum(counted(outbox, "timeout") for outbox in outboxes) == 0
    assert site.jobs() == {}


async def test_one_whose_key_is_missing_is_given_up_too_and_says_why(
    url: str, tmp_path: Path
) -> None:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        log = await EvidenceLog.open(url, keys=keys)
        await log.append(waiting("hopeless-1", seconds=49 * 3600))
        with EvidenceStore.open(url) as store, store.reading() as connection:
            keys.destroy([connection.execute(select(events.c.record_key)).scalar_one()])
        outbox = Outbox(log, None, Metrics(), timedelta(seconds=300))
        for _ in range(2):
            await outbox.sweep()
        assert counted(outbox, "failed") == 1
        with EvidenceStore.open(url) as store, store.reading() as connection:
            ended = select(events.c.status).where(events.c.event_type == "explanation")
            assert connection.execute(ended).scalar_one() == "failed"
        await log.close()


async def test_late_and_old_ones_end_without_a_queue(url: str) -> None:
    log = await EvidenceLog.open(url)
    await log.append(waiting("late-00001", seconds=301))
    await log.append(waiting("hopeless-1", seconds=49 * 3600))
    outbox = Outbox(log, None, Metrics(), timedelta(seconds=300))
    await outbox.sweep()
    await log.close()
    assert (counted(outbox, "timeout"), counted(outbox, "dead")) == (1, 1)


async def test_the_next_sweep_starts_at_the_oldest_that_is_still_pending(site: Site) -> None:
    oldest, ended = waiting("oldest-001", seconds=500), waiting("ended-0001", seconds=600)
    for event in (oldest, ended):
        await site.log.append(event)
    await site.log.append_final(final(ended))
    outbox = site.outbox()
    await outbox.sweep()
    assert outbox._since == oldest.received_at
    await site.log.append_final(final(oldest))
    await outbox.sweep()
    assert timedelta(seconds=60) < datetime.now(UTC) - outbox._since < timedelta(seconds=70)
    committed_late = waiting("latecomer1", seconds=50)
    await site.log.append(committed_late)
    await outbox.sweep()
    assert set(site.jobs()) == {"oldest-001", "latecomer1"}


async def test_a_decision_of_a_wrong_clock_is_found_by_a_deep_sweep(site: Site) -> None:
    outbox = site.outbox()
    await outbox.sweep()
    await site.log.append(waiting("yesterday1", seconds=23 * 3600))
    await site.log.append(waiting("tomorrow-1", seconds=-23 * 3600))
    await outbox.sweep()
    assert site.jobs() == {}
    outbox._deep_at = 0
    await outbox.sweep()
    assert set(site.jobs()) == {"yesterday1", "tomorrow-1"}


async def test_it_goes_on_after_the_store_was_away(
    site: Site, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await site.log.append(waiting("lost-00001"))
    change(url, "ALTER TABLE events RENAME TO hidden")
    running = asyncio.create_task(site.outbox().run())
    logged = "outbox_waits_for_store"
    await until(lambda: logged in capsys.readouterr().out)
    change(url, "ALTER TABLE hidden RENAME TO events")
    await until(site.jobs, seconds=20)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
