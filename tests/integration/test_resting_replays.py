"""Processes that have replayed a record, and wait for the next one."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from live_app import LiveApp, live_app
from servers import JSON, wait_until

from service import replays

Instance = dict[str, Any]


def replay(live: LiveApp, request_id: str) -> bool:
    reply = live.client().request("POST", f"/explanations/{request_id}/replay", b"", JSON)
    assert reply.status == 200, reply.body
    return bool(reply.json()["equal"])


def decided(live: LiveApp, rows: list[Instance]) -> str:
    reply = live.client().predict(rows[:1])
    assert reply.status == 200
    return reply.headers["x-request-id"]


def resting(live: LiveApp) -> set[int]:
    return {child.pid for child in list(live.runtime.replays.children._idle)}


def are_heard(live: LiveApp) -> bool:
    return all(child.is_alive for child in list(live.runtime.replays.children._idle))


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_the_next_replay_needs_no_process_of_its_own(
    data_dir: Path, rows: list[Instance], capfd: pytest.CaptureFixture[str]
) -> None:
    with live_app(data_dir) as live:
        request_id = decided(live, rows)
        assert replay(live, request_id)
        (pid,) = resting(live)
        (end,) = live.runtime.replays.children._idle.values()
        started = time.perf_counter()
        assert replay(live, request_id)
        print(f"again in {time.perf_counter() - started:.2f} s")
        assert resting(live) == {pid}
        assert end.cancelled(), "it would have ended the second rest, or the replay"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not are_heard(live))
        assert replay(live, request_id)
        (other,) = resting(live)
        assert other != pid
        wait_until(lambda: is_gone(pid))
    assert is_gone(other)
    assert "never retrieved" not in capfd.readouterr().err


def test_one_that_nobody_needs_gives_its_memory_back(
    data_dir: Path, rows: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "REST_SECONDS", 0.3)
    with live_app(data_dir) as live:
        assert replay(live, decided(live, rows))
        (pid,) = resting(live)
        wait_until(lambda: is_gone(pid))
        assert resting(live) == set()


def test_one_whose_replay_failed_is_not_used_again(
    data_dir: Path, rows: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "FUNCTION", "child_jobs:fail")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    with live_app(data_dir) as live:
        path = f"/explanations/{decided(live, rows)}/replay"
        assert live.client().request("POST", path, b"", JSON).status == 503
        assert resting(live) == set()
