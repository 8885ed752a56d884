"""Of counterfactuals: what is refused because of when and by how many it is asked, long lists."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from problems import assert_problem
from recourse_apps import POLICY, Instance, closest, post, predicted, serving
from servers import Reply, wait_until

from service import recourse
from service.auth import KeyFile
from service.evidence import StoredRepeatable


def test_a_decision_by_another_threshold_is_refused(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    with serving(tmp_path / "data", two_models) as live:
        client = live.client()
        referred = closest(client, mixed_rows)
        request_id = predicted(client, referred)["request_id"]

        def follow(text: str) -> None:
            (tmp_path / "data" / "policy.toml").write_text(text)
            policy = live.runtime.models.all["mixed"].policy
            wait_until(lambda: live.runtime.models.all["mixed"].policy is not policy)

        follow(POLICY.replace("at_least = 0.5", "at_least = 0.9"))
        refused = post(client, {"request_id": request_id})
        assert_problem(refused, 409, "policy_replaced")
        assert client.get(f"/explanations/{request_id}/counterfactuals").json() == {"items": []}
        told = post(client, {"model": "mixed", "instances": [referred]}).json()
        assert told["threshold"]["at_least"] == 0.9
        follow(POLICY.replace("margin = 0.1", "margin = 0.2"))
        told = post(client, {"request_id": request_id}).json()
        assert (told["status"], told["threshold"]["at_least"]) == ("found", 0.5)


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Searches that begin in here end when the event is set, or at the end."""
    may_end, advise = Event(), recourse.advise

    def wait(*asked: Any) -> recourse.Advice:
        may_end.wait()
        return advise(*asked)

    monkeypatch.setattr(recourse, "advise", wait)
    try:
        yield may_end
    finally:
        may_end.set()


def test_what_finds_no_room_leaves_nothing_behind_and_no_tenant_takes_it_all(
    tmp_path: Path,
    two_models: Path,
    mixed_rows: list[Instance],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content, keys = KeyFile(), {}
    for tenant in ("north", "south"):
        content, keys[tenant] = content.with_key(tenant, ("predict", "recourse"), tenant)
    content.write(tmp_path / "keys.json")
    monkeypatch.setattr(recourse, "MOST_WAITING", 5)
    with (
        serving(tmp_path / "data", two_models, api_keys_file=tmp_path / "keys.json") as live,
        ThreadPoolExecutor(8) as pool,
        held(monkeypatch) as may_end,
    ):
        north, south = (live.client(key) for key in keys.values())
        instance = {"model": "mixed", "instances": [closest(north, mixed_rows)]}

        def ask(of: str) -> Future[Reply]:
            return pool.submit(post, live.client(keys[of]), instance)

        asked = [ask("north") for _ in range(6)]
        wait_until(lambda: live.runtime.recourse._waiting == 6)
        for client, request_id in ((north, "of-a-tenant-with-six"), (south, "of-a-full-process")):
            if client is south:
                asked.append(ask("south"))
                wait_until(lambda: live.runtime.recourse._waiting == 7)
            refused = post(client, instance, **{"X-Request-ID": request_id})
            assert_problem(refused, 503, "overloaded")
            assert_problem(client.get(f"/explanations/{request_id}"), 404, "not_found")
        may_end.set()
        assert [each.result().status for each in asked] == [200] * 7
        assert post(north, instance).status == 200
        assert live.runtime.recourse._of_tenant == {}


def test_a_list_is_written_beside_the_event_loop(
    tmp_path: Path,
    two_models: Path,
    mixed_rows: list[Instance],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed, numbers = recourse._listed, []

    def write(stored: Sequence[StoredRepeatable]) -> bytes:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        numbers.append(len(stored))
        return listed(stored)

    monkeypatch.setattr(recourse, "_listed", write)
    with serving(tmp_path / "data", two_models) as live:
        client = live.client()
        request_id = predicted(client, closest(client, mixed_rows))["request_id"]
        told = post(client, {"request_id": request_id}).json()
        (item,) = client.get(f"/explanations/{request_id}/counterfactuals").json()["items"]
        assert (numbers, item["counterfactuals"]) == ([1], told["counterfactuals"])
