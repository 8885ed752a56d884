"""The machine's clock jumps a day ahead, a day back, and home again, under load."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from clocks import ShiftedClock
from drills import BEST_EFFORT, Load, Witness, assert_alive, is_stored, queried, sqlite_of
from servers import COMMAND, Client, start_server, wait_until
from tables import breast_cancer, instances_of, mixed
from valkey_server import running_valkey

DAY = 86_400
ROWS = {
    "/models/breast_cancer/predict": instances_of(breast_cancer()[0].iloc[:50]),
    "/models/mixed/predict": instances_of(mixed()[0].iloc[:50]),
}

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(shutil.which("cc") is None, reason="the clock's shim needs a C compiler"),
]


@pytest.fixture
def clock(tmp_path: Path) -> ShiftedClock:
    return ShiftedClock.made(tmp_path / "clock")


def received_at(client: Client, row: dict[str, Any]) -> datetime:
    reply = client.predict([row], path="/models/mixed/predict")
    record = client.get(f"/explanations/{reply.headers['x-request-id']}").json()
    return datetime.fromisoformat(record["received_at"])


def listed(client: Client) -> list[str]:
    """All request IDs, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = client.get(f"/explanations?limit=37{cursor}").json()
        found += [item["request_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_evidence_under_a_clock_that_jumps(
    tmp_path: Path, two_models: Path, clock: ShiftedClock
) -> None:
    shutil.copytree(two_models, tmp_path / "registry")
    (tmp_path / "policy.toml").write_text(BEST_EFFORT)
    policy = ("--policy-file", str(tmp_path / "policy.toml"))
    env = clock.env
    server, witness = start_server(tmp_path, *policy, env=env), Witness()
    try:
        client, load = server.client(), Load([server.url], ROWS)
        with load.running():
            for shift in (0, DAY, 0, -DAY, 0):
                clock.shift(shift)
                moved = received_at(client, ROWS["/models/mixed/predict"][0]) - datetime.now(UTC)
                assert abs(moved - timedelta(seconds=shift)) < timedelta(seconds=60)
                load.until(40, is_stored)
                size = witness.look(client)
                wait_until(lambda size=size: witness.look(client) > size, seconds=20)
        assert {reply.status for reply in load.replies.values()} == {200}
        load.assert_kept(client)
        witness.assert_log_is_whole(sqlite_of(tmp_path), client, list(load.acknowledged()))
        found = listed(client)
        assert len(found) == len(set(found))
        assert set(load.replies) <= set(found)
        assert_made_in_order(sqlite_of(tmp_path))
        assert_alive(server)
    finally:
        server.close()


def assert_made_in_order(url: str) -> None:
    """Event IDs never go back, although their process's clock did; nothing expires early."""
    query = "SELECT event_id, received_us, expires_us, header FROM events ORDER BY rowid"
    rows = queried(url, query)
    moments = [received for _, received, _, _ in rows]
    assert max(moments) - min(moments) > 1.9 * DAY * 1_000_000
    ids = sorted(str(event_id) for event_id, _, _, _ in rows)
    by_id = {str(event_id): received for event_id, received, _, _ in rows}
    # Twice the clock went back by a day, and the IDs went on.
    backwards = [i for i in range(1, len(ids)) if by_id[ids[i]] < by_id[ids[i - 1]] - DAY * 500_000]
    assert len(backwards) >= 2
    assert {expires - received for _, received, expires, _ in rows} == {183 * DAY * 1_000_000}
    skewed = {orjson.loads(header)["clock_skewed"] for _, _, _, header in rows}
    assert False in skewed


@contextmanager
def running_worker(folder: Path, url: str, env: dict[str, str]) -> Iterator[None]:
    command = [*COMMAND, "worker", "--data-dir", str(folder), "--redis-url", url]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **env})
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("shift", [-DAY, DAY], ids=["back", "ahead"])
def test_a_pending_explanation_outlives_a_jump_and_says_so(
    data_dir: Path, clock: ShiftedClock, shift: int
) -> None:
    with running_valkey() as valkey:
        env = {
            "EXPLAIND_REDIS_URL": valkey.url,
            "EXPLAIND_INLINE_BUDGET_SECONDS": "1e-9",
            "EXPLAIND_WAIT_SECONDS": "0",
            "EXPLAIND_JOB_TIME_LIMIT_SECONDS": "150",  # a busy machine leaves children little
            **clock.env,
        }
        server = start_server(data_dir, env=env)
        try:
            client = server.client()
            reply = client.predict(ROWS["/models/breast_cancer/predict"][:1])
            assert reply.json()["explanation"]["status"] == "pending"
            path = f"/explanations/{reply.headers['x-request-id']}"
            clock.shift(shift)
            wait_until(lambda: timeouts(client) == (shift > 0), seconds=20)
            assert client.get(path).json()["explanation"]["status"] == "pending"
            with running_worker(data_dir, valkey.url, env):
                wait_until(lambda: status_of(client, path) != "pending", seconds=180)
            assert status_of(client, path) == "complete"
        finally:
            server.close()
    query = "SELECT header FROM events WHERE event_type = 'explanation'"
    ((header,),) = queried(sqlite_of(data_dir), query)
    assert orjson.loads(header)["clock_skewed"] is (shift < 0)


def status_of(client: Client, path: str) -> str:
    return str(client.get(path).json()["explanation"]["status"])


def timeouts(client: Client) -> float:
    lines = client.get("/metrics").body.decode().splitlines()
    found = [line for line in lines if 'outcome="timeout"' in line and 'lane="queued"' in line]
    return sum(float(line.split()[-1]) for line in found)
