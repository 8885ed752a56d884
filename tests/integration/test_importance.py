"""GET /models/{name}/importance over HTTP."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from live_app import LiveApp, live_app
from problems import assert_problem
from servers import JSON, Client

from schemas import ColumnImportance
from service.uuid7 import Uuid7Source, first_id_at

Instance = dict[str, Any]
PATH = "/models/breast_cancer/importance"


def ask(client: Client, query: str = "") -> Any:
    reply = client.get(PATH + query)
    assert reply.status == 200, reply.body
    assert reply.headers["cache-control"] == "no-store"
    ColumnImportance.model_validate_json(reply.body)
    return reply.json()


def test_today_is_not_told(live: LiveApp, rows: list[Instance]) -> None:
    body = json.dumps({"instances": rows[:30], "subjects": [f"s{n}" for n in range(30)]}).encode()
    assert live.client().request("POST", "/predict?explain=true", body, JSON).status == 200
    today = datetime.now(UTC).date()
    answer = ask(live.client(), f"?since={today}&until={today + timedelta(days=1)}")
    assert (answer["importance"], answer["reason"]) == (None, "too few people")
    assert ask(live.client())["until"] == today.isoformat()


@pytest.mark.parametrize(
    "query",
    [
        "?since=2026-01-02&until=2026-01-02",
        "?since=2026-01-02&until=2026-01-01",
        "?since=2026-01-01&until=2026-03-01",
        "?since=2026-01-01T10:00:00Z&until=2026-01-02",
        "?since=2026-01-01T00:00:00%2B02:00&until=2026-01-02",
        "?since=yesterday",
        "?since=1767225600",
        "?since=2026-02-30",
    ],
)
def test_windows_that_are_no_whole_days_are_refused(live: LiveApp, query: str) -> None:
    assert_problem(live.client().get(PATH + query), 422, "invalid_content")


def test_midnight_is_a_whole_day(live: LiveApp) -> None:
    query = "?since=2026-01-01T00:00:00Z&until=2026-01-03"
    assert ask(live.client(), query) == ask(live.client(), "?since=2026-01-01&until=2026-01-03")


def test_an_unknown_model_has_none(live: LiveApp) -> None:
    assert_problem(live.client().get("/models/nothing/importance"), 404, "not_found")


def test_a_day_that_is_over_tells_what_matters(data_dir: Path, rows: list[Instance]) -> None:
    with live_app(data_dir, k_anonymity=25) as app:
        for start in (0, 32):
            names = [f"s{start + n}" for n in range(32)]
            body = json.dumps({"instances": rows[start : start + 32], "subjects": names}).encode()
            app.client().request("POST", "/predict?explain=true", body, JSON)
        today = datetime.now(UTC).date()
        later = datetime.now(UTC) + timedelta(days=1, hours=2)
        app.runtime.importances = replace(app.runtime.importances, now=lambda: later)
        answer = ask(app.client(), f"?since={today}&until={today + timedelta(days=1)}")
        model = app.runtime.models.resolve("breast_cancer").model
    assert (answer["people"], answer["k"], answer["days"]) == (64, 25, 1)
    assert list(answer["importance"]) == list(model.schema.names)
    assert max(answer["importance"].values()) > 0


def test_first_ids_divide_time() -> None:
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    ticks = [int(moment.timestamp() * 10**9) + step for step in (-1_000_000, 0, 1_000_000)]
    made = [Uuid7Source(clock_nanoseconds=lambda now=now: now)() for now in ticks]
    assert [event_id < first_id_at(moment) for event_id in made] == [True, False, False]
