"""What may be sent to call an explanation off; and waiting where nobody can be waited for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from later import NO_INLINE
from live_app import LiveApp, live_app
from valkey_server import running_valkey

Instance = dict[str, Any]
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[LiveApp]:
    data_dir = tmp_path_factory.mktemp("away")
    settings = {"redis_url": f"unix://{data_dir / 'nobody'}", **NO_INLINE}
    with live_app(data_dir, registry=demo_registry, **settings) as live:
        yield live


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (None, None, 202),
        (b"", "application/json", 202),
        (b"{}", "application/json", 202),
        (b"{}", None, 415),
        (b"a=b", FORM, 415),
        (b"", FORM, 415),
        (b"", "text/plain", 415),
    ],
    ids=str,
)
def test_calling_off_takes_no_body_or_a_json_one(
    away: LiveApp,
    rows: list[Instance],
    content: bytes | None,
    media_type: str | None,
    status: int,
) -> None:
    client = away.client()
    path = f"/explanations/{client.predict(rows[:1]).json()['request_id']}"
    headers = {} if media_type is None else {"Content-Type": media_type}
    reply = client.request("POST", f"{path}/cancel", content, headers)
    assert reply.status == status, reply.body
    after = client.get(path).json()["explanation"]["status"]
    assert after == ("failed" if status == 202 else "pending")


def test_a_preference_to_wait_counts_only_where_somebody_can_be_waited_for(
    away: LiveApp, tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    asked = {"Prefer": "wait=1"}
    reply = away.client().predict(rows[:1], headers=asked)
    assert reply.json()["explanation"]["status"] == "pending"
    assert "preference-applied" not in reply.headers
    at_once = away.client().predict(rows[:1], headers={"Prefer": "respond-async"})
    assert at_once.headers["preference-applied"] == "respond-async"
    with running_valkey() as valkey:
        settings = {"redis_url": valkey.url, **NO_INLINE}
        with live_app(tmp_path, registry=demo_registry, **settings) as live:
            reply = live.client().predict(rows[:1], headers=asked)
    assert reply.json()["explanation"]["status"] == "pending"
    assert reply.headers["preference-applied"] == "wait=1"
