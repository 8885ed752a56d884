"""Two thousand requests at once: as many records as answers, and the answers of serial requests."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counted import total
from live_app import LiveApp, live_app
from servers import Client, Reply

Instance = dict[str, Any]

CLIENTS = 50
REQUESTS = 40
OWN_TO_A_REQUEST = ("duration_seconds", "links")


@dataclass(frozen=True)
class Kind:
    """One sort of request, and the status it is answered with."""

    instances: list[Instance]
    query: str
    status: int
    path: str = "/predict"

    def send(self, client: Client, request_id: str | None = None) -> Reply:
        headers = {} if request_id is None else {"X-Request-ID": request_id}
        return client.predict(self.instances, query=self.query, path=self.path, headers=headers)


def kinds_of(rows: list[Instance]) -> list[Kind]:
    return [
        *(Kind([row], "?explain=true", 200) for row in rows[:20]),
        *(Kind([row], "", 200) for row in rows[20:30]),
        Kind(rows[:7], "?explain=true&top=0", 200),
        Kind(rows[7:40], "?explain=true&top=30", 200),
        Kind(rows, "", 200),
        Kind([{**rows[0], "mean area": "x"}], "?explain=true", 422),
        Kind([], "", 422),
        Kind(rows[:1], "?top=99", 422),
        Kind(rows[:1], "", 404, path="/models/unknown/predict"),
    ]


def content(reply: Reply) -> dict[str, Any]:
    """An answer without what is its own: ID and duration."""
    answer: dict[str, Any] = reply.json()
    del answer["request_id"]
    for name in OWN_TO_A_REQUEST if answer["explanation"] else ():
        del answer["explanation"][name]
    return answer


def send_at_once(app: LiveApp, kinds: list[Kind]) -> list[tuple[Kind, Reply]]:
    barrier = threading.Barrier(CLIENTS)
    clients = [app.client() for _ in range(CLIENTS)]

    def work(number: int) -> list[tuple[Kind, Reply]]:
        rng = random.Random(number)
        chosen = rng.choices(kinds, k=REQUESTS)
        barrier.wait()
        return [
            (kind, kind.send(clients[number], f"own-id-{number}-{turn}" if turn % 2 else None))
            for turn, kind in enumerate(chosen)
        ]

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [pair for pairs in pool.map(work, range(CLIENTS)) for pair in pairs]


def listed_ids(client: Client, *, limit: int) -> list[str]:
    """Every record, page by page, along the Link headers."""
    found, path = [], f"/explanations?limit={limit}"
    while True:
        page = client.get(path)
        items = page.json()["items"]
        assert len(items) <= limit
        found += [item["request_id"] for item in items]
        if page.json()["next_cursor"] is None:
            assert "link" not in page.headers
            return found
        path = page.headers["link"].removeprefix("<").partition(">")[0]


def test_two_thousand_mixed_requests_leave_one_record_for_each_answer(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    kinds = kinds_of(rows)
    with live_app(tmp_path / "serial", registry=demo_registry) as app:
        client = app.client()
        serial = {id(kind): kind.send(client) for kind in kinds}
    with live_app(tmp_path / "at-once", registry=demo_registry) as app:
        pairs = send_at_once(app, kinds)
        assert len(pairs) == CLIENTS * REQUESTS
        assert [reply.status for _, reply in pairs] == [kind.status for kind, _ in pairs]
        answered = [(kind, reply) for kind, reply in pairs if kind.status == 200]
        for kind, reply in answered:
            assert reply.headers["evidence"] == "stored"
            assert content(reply) == content(serial[id(kind)])
        ids = [reply.headers["x-request-id"] for _, reply in answered]
        assert len(set(ids)) == len(ids)
        for limit in (200, 33):
            listed = listed_ids(app.client(), limit=limit)
            assert len(listed) == len(ids)
            assert set(listed) == set(ids)
        assert total(app.runtime.metrics.audit_writes.labels("sql", "ok")) == len(ids)
        for method in ("GET", "POST"):
            assert app.runtime.metrics.http_active_now[method] == 0
        assert not app.runtime.predicting._in_flight
