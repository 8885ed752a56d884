"""What records say of where they come from, read from the store itself."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import five_percent_off, with_explainer
from later import NO_INLINE, Worker, jobs_in
from live_app import LiveApp, live_app
from servers import JSON, wait_until
from valkey_server import Valkey, running_valkey

from service.evidence import Record
from service.evidence.sections import cut
from service.methods import config_digest
from service.registry.described import describe_version
from service.registry.libraries import REVISION, git_revision

Instance = dict[str, Any]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
DECIDING = """
[models.breast_cancer.decision]
name = "discharge"
class = "benign"
at_least = 0.9
"""
PASSED = dict.fromkeys(("finite", "additivity", "link", "dummy", "names", "golden"), "passed")


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with running_valkey() as valkey:
        yield valkey


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, demo_registry: Path, valkey: Valkey
) -> Iterator[LiveApp]:
    """Every explanation is queued, and completed where a test says so."""
    data_dir = tmp_path_factory.mktemp("provenance")
    settings = {"redis_url": valkey.url, **NO_INLINE}
    with live_app(data_dir, registry=demo_registry, **settings) as live:
        yield live


def completed(live: LiveApp, request_id: str) -> tuple[Record, dict[str, Any], dict[str, Any]]:
    """The record, and its final event's payload and header."""
    Worker(live).complete(request_id)
    record = Worker(live).record(request_id)
    assert record.final is not None
    return record, json.loads(record.final.payload), json.loads(record.final.header)


def test_a_final_says_who_computed_it_and_what_was_checked(
    live: LiveApp, rows: list[Instance]
) -> None:
    answer = live.client().predict(rows[:2]).json()
    _, payload, _ = completed(live, answer["request_id"])
    assert payload["checks"] == PASSED
    provenance = payload["provenance"]
    assert (provenance["worker"], provenance["attempt"]) == ("w1", 1)
    assert provenance["queue_seconds"] == 0.5


@pytest.mark.parametrize("method", ["permutation", "kernel", "lime"])
def test_another_method_has_a_configuration_of_its_own(
    live: LiveApp, rows: list[Instance], method: str
) -> None:
    client = live.client()
    parent = client.predict(rows[:1], query="").json()["request_id"]
    body = json.dumps({"request_id": parent, "method": method}).encode()
    request_id = client.request("POST", "/explanations", body, JSON).json()["request_id"]
    record, payload, header = completed(live, request_id)
    version = describe_version(live.runtime.models.registry.layout, "breast_cancer", 1)
    own, others = version.manifest.explainer.config_digest, config_digest(version, method)
    assert own != others
    found = [
        payload["provenance"]["explainer_config_digest"],
        header["config_digest"],
        json.loads(record.decision.header)["config_digest"],
        json.loads(record.decision.part("provenance"))["explainer_config_digest"],
    ]
    assert found == [others] * 4
    if method == "lime":
        unknown = dict.fromkeys(PASSED) | {"finite": "passed", "golden": "passed"}
        assert payload["checks"] == unknown


def test_every_method_of_a_version_is_another_configuration(live: LiveApp) -> None:
    version = describe_version(live.runtime.models.registry.layout, "breast_cancer", 1)
    methods = (None, "permutation", "exact", "kernel", "interactions", "lime")
    digests = {config_digest(version, method) for method in methods}
    assert len(digests) == len(methods)
    assert config_digest(version, "tree_interventional") == config_digest(version, None)


def test_an_inline_record_says_what_was_checked(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    for change, expected in (
        (None, PASSED),
        (
            five_percent_off,
            {**dict.fromkeys(PASSED), "finite": "passed", "additivity": "failed"}
            | {"golden": "passed"},
        ),
    ):
        customise = None if change is None else with_explainer(change)
        folder = tmp_path / str(change is None)
        with live_app(folder, registry=demo_registry, customise=customise) as app:
            answer = app.client().predict(rows[:1]).json()
            payload = json.loads(Worker(app).record(answer["request_id"]).decision.payload)
            assert payload["checks"] == expected


async def test_a_job_queued_again_keeps_its_trace(
    live: LiveApp, valkey: Valkey, rows: list[Instance]
) -> None:
    reply = live.client().predict(rows[:1], headers={"X-Request-ID": "traced-0001", **TRACED})
    assert reply.json()["explanation"]["status"] == "pending"
    with closing(valkey.client()) as redis:
        wait_until(lambda: jobs_in(redis)["traced-0001"]["trace_id"] == TRACE)
        redis.flushall()
        wait_until(lambda: "traced-0001" in jobs_in(redis), seconds=30)
        assert jobs_in(redis)["traced-0001"]["trace_id"] == TRACE


def test_what_records_say_can_be_cut_into_sections_of_subjects(
    tmp_path: Path, demo_registry: Path, live: LiveApp, rows: list[Instance]
) -> None:
    (tmp_path / "policy.toml").write_text(DECIDING)
    shutil.copytree(demo_registry, tmp_path / "registry")
    with live_app(tmp_path, policy_file=tmp_path / "policy.toml") as app:
        answer = app.client().predict(rows[:2]).json()
        decision = Worker(app).record(answer["request_id"]).decision
    assert {"checks", "policy"} <= decision.parts.keys()
    queued = live.client().predict(rows[:2]).json()
    record, _, _ = completed(live, queued["request_id"])
    assert record.final is not None
    for stored in (decision, record.decision, record.final):
        assert len(cut(stored.payload, stored.parts, (1, 2))) >= 3


def test_headers_name_the_commit_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    git_revision.cache_clear()
    assert git_revision() is None, "installed from a working copy"
    git_revision.cache_clear()
    monkeypatch.setenv(REVISION, "0123abcd")
    assert git_revision() == "0123abcd"
    git_revision.cache_clear()
