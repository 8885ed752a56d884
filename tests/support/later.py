"""Explanations that come later: what a worker does to a record, without its process."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from live_app import LiveApp
from redis import Redis

from service.cohorts import Cohorts
from service.computing import Computer
from service.evidence import FinalEvent, FinalOutcome, Record
from service.provenance import Taken
from service.queue.notices import encode_notices
from service.queue.server import CHANNEL, STREAMS
from service.registry import Registry
from service.tasks import final_event, task_of

NO_INLINE: dict[str, Any] = {"inline_budget_seconds": 1e-9, "wait_seconds": 0}
"""Settings under which every explanation is queued and no answer waits for it."""


@dataclass(frozen=True)
class Worker:
    """Computes and stores what the records of an application ask for, where it is told to."""

    app: LiveApp
    redis: Redis | None = None
    policy_file: Path | None = None
    """Another than the application's."""

    def complete(self, request_id: str, *, tenant: str = "default") -> FinalOutcome:
        """Explain a pending record, store it, and announce it if there is a queue."""
        event = self.computed(request_id, tenant=tenant)
        outcome = self.app.runtime.evidence.store.append_final(event)
        self.announce("final", request_id, {}, tenant=tenant)
        return outcome

    def computed(self, request_id: str, *, tenant: str = "default") -> FinalEvent:
        """The explanation of a pending record, not stored yet."""
        settings, keyring = self.app.runtime.settings, self.app.runtime.predicting.keyring
        record = self.record(request_id, tenant=tenant)
        task = task_of(record, keyring, taken=Taken("w1", 1, 0.5))
        computer = Computer(
            Registry(settings.registry), Cohorts(self.policy_file or settings.policy_file)
        )
        finished = computer.compute(task, lambda *_: None)
        return final_event(record, finished)

    def announce(
        self, kind: Any, request_id: str, facts: Mapping[str, object], *, tenant: str = "default"
    ) -> None:
        if self.redis is not None:
            self.redis.publish(CHANNEL, encode_notices(kind, [((tenant, request_id), facts)]))

    def record(self, request_id: str, *, tenant: str = "default") -> Record:
        record = self.app.runtime.evidence.store.record(tenant, request_id)
        assert record is not None
        return record


class Stream:
    """One connection that follows a record."""

    def __init__(self, app: LiveApp, path: str, key: str = "none") -> None:
        host, port = app.url.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=20)
        headers = {"Authorization": f"Bearer {key}"}
        self.connection.request("GET", path + "/events", headers=headers)
        self.response = self.connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.connection.close()


def read_events(stream: Any) -> list[tuple[str, Any]]:
    """The server-sent events of a response, to its end; comments are left out."""
    events, name = [], ""
    for line in stream:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            events.append((name, json.loads(value)))
    return events


def jobs_in(redis: Redis) -> dict[str, Any]:
    """Request ID to job of everything in the queue's streams."""
    entries = [
        entry for stream in STREAMS.values() for entry in cast("list[Any]", redis.xrange(stream))
    ]
    jobs = [json.loads(fields[b"job"]) for _, fields in entries]
    return {job["request_id"]: job for job in jobs}
