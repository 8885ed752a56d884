"""An answer that waits for its explanation: what it waits for, and what it does not."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from later import Worker
from live_app import LiveApp, live_app
from servers import wait_until
from tables import breast_cancer, instances_of
from valkey_server import Valkey, running_valkey

from service.evidence import EvidenceStore
from service.evidence.events import AnswerEvent
from service.queue import QueueAwayError
from service.queue.notices import GAP

ROW = instances_of(breast_cancer()[0].iloc[:1])
WAIT = {"Prefer": "wait=20"}


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def live(data_dir: Path, valkey: Valkey) -> Iterator[LiveApp]:
    settings: dict[str, Any] = {"inline_budget_seconds": 1e-9, "redis_url": valkey.url}
    with live_app(data_dir, **settings) as live:
        wait_until(lambda: not live.runtime.delivery.is_queue_away)
        yield live


def asked(live: LiveApp, request_id: str, found: list[Any]) -> threading.Thread:
    def ask() -> None:
        reply = live.client().predict(ROW, headers={**WAIT, "X-Request-ID": request_id})
        found.append((reply.json()["explanation"]["status"], reply.headers))

    thread = threading.Thread(target=ask)
    thread.start()
    key = ("default", request_id)
    queue = live.runtime.delivery.queue
    assert queue is not None
    wait_until(lambda: key in queue.notices._waiting and queue.depth >= 0)
    wait_until(lambda: live.runtime.delivery.evidence.backlog() == 0)
    return thread


def test_missed_announcements_do_not_end_the_wait(live: LiveApp, valkey: Valkey) -> None:
    found: list[Any] = []
    thread = asked(live, "request-one", found)
    queue = live.runtime.delivery.queue
    assert queue is not None
    told = threading.Event()

    def tell() -> None:
        queue.notices._tell_all(GAP)
        told.set()

    queue.notices._listener.get_loop().call_soon_threadsafe(tell)
    told.wait()
    with valkey.client() as redis:
        wait_until(lambda: redis.xlen("explaind:jobs:high") == 1)
        Worker(live, redis).complete("request-one")
        thread.join()
    ((status, headers),) = found
    assert status == "complete"
    assert headers["preference-applied"] == "wait=20"
    assert "location" not in headers


def test_who_waits_for_a_worker_takes_no_place(live: LiveApp, valkey: Valkey) -> None:
    found: list[Any] = []
    admission = live.runtime.delivery.admission
    thread = asked(live, "resting-one", found)
    wait_until(lambda: admission.resting == 1)
    with valkey.client() as redis:
        wait_until(lambda: redis.xlen("explaind:jobs:high") == 1)
        Worker(live, redis).complete("resting-one")
        thread.join()
    assert admission.resting == 0


def test_a_service_that_stops_answers_with_what_there_is(live: LiveApp) -> None:
    found: list[Any] = []
    thread = asked(live, "stopped-one", found)
    started = time.perf_counter()
    live.runtime.is_stopping = True
    thread.join()
    live.runtime.is_stopping = False
    assert time.perf_counter() - started < 5
    assert [status for status, _ in found] == ["pending"]


def test_a_late_repetition_decides_what_the_first_answer_carries(
    live: LiveApp, valkey: Valkey
) -> None:
    """Two processes: one still waits when the other has already told a repetition it is pending."""
    found: list[Any] = []
    thread = asked(live, "twice-asked", found)
    with valkey.client() as redis:
        worker = Worker(live, redis)
        with EvidenceStore.open(live.runtime.settings.database_url) as store:
            decision = worker.record("twice-asked").decision
            store.append(
                AnswerEvent.about(
                    decision, "pending", actor="local", completed_at=decision.received_at
                )
            )
        worker.complete("twice-asked")
    thread.join()
    again = live.client().predict(ROW, headers={**WAIT, "X-Request-ID": "twice-asked"})
    assert [status for status, _ in found] == ["pending"]
    assert again.json()["explanation"]["status"] == "pending"


def test_a_queue_that_answered_too_late_is_waited_for(
    live: LiveApp, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_late(*_: object) -> bool:
        raise QueueAwayError("the queue's server did not answer in time")

    queue = live.runtime.delivery.queue
    assert queue is not None
    monkeypatch.setattr(queue, "submit", too_late)
    found: list[Any] = []
    thread = asked(live, "answered-late", found)
    with valkey.client() as redis:
        Worker(live, redis).complete("answered-late")
    thread.join()
    assert [status for status, _ in found] == ["complete"]


def test_what_the_queue_does_not_take_is_not_waited_for(live: LiveApp, valkey: Valkey) -> None:
    client = live.client()
    valkey.freeze()
    started = time.perf_counter()
    replies = [client.predict(ROW, headers=WAIT) for _ in range(3)]
    seconds = time.perf_counter() - started
    valkey.thaw()
    assert {reply.json()["explanation"]["status"] for reply in replies} == {"pending"}
    assert all(reply.headers["location"] for reply in replies)
    assert seconds < 10, "they waited for a result that could not come"
    failed = {"model": "breast_cancer", "stage": "queue", "type": "QueueAwayError"}
    assert live.runtime.metrics.registry.get_sample_value("explain_errors_total", failed) == 3
    assert client.get("/readyz").status == 200
