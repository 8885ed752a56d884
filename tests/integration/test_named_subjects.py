"""Requests that name whom their rows are about: the record commits to it, and works as others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from disposals import ERASURE
from later import NO_INLINE
from live_app import LiveApp, live_app
from servers import JSON, Client

from service.disposal import erase
from service.evidence import StoredDecision

Instance = dict[str, Any]
NAMES = ["anna", None, "bert"]


def predicted(client: Client, rows: list[Instance], query: str = "") -> str:
    body = json.dumps({"instances": rows, "subjects": NAMES[: len(rows)]}).encode()
    reply = client.request("POST", f"/models/mixed/predict{query}", body, JSON)
    assert reply.status == 200, reply.body
    return str(reply.json()["request_id"])


def stored(live: LiveApp, request_id: str) -> StoredDecision:
    found = live.runtime.evidence.store.record("default", request_id)
    assert found is not None
    return found.decision


@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_record_and_what_explains_it_again_commit_to_their_keyed_subjects(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance], n_rows: int
) -> None:
    settings: dict[str, Any] = {**NO_INLINE, "redis_url": f"unix://{tmp_path / 'nobody'}"}
    with live_app(tmp_path, registry=two_models, **settings) as live:
        client = live.client()
        request_id = predicted(client, mixed_rows[:n_rows])
        body = json.dumps({"request_id": request_id}).encode()
        again = client.request("POST", "/explanations", body, JSON).json()["request_id"]
        first, child = stored(live, request_id), stored(live, again)
        assert first.subjects is not None
        assert child.part("subjects") == first.part("subjects") == first.subjects.encode()
        keyed = json.loads(first.subjects)
        assert [name is None for name in keyed] == [name is None for name in NAMES[:n_rows]]
        assert b"anna" not in first.payload


def test_a_request_without_subjects_has_no_such_part(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=two_models) as live:
        reply = live.client().predict(mixed_rows[:1], path="/models/mixed/predict")
        assert "subjects" not in stored(live, reply.json()["request_id"]).parts


def test_a_record_that_names_subjects_is_replayed_and_loses_the_name_that_is_erased(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=two_models) as live:
        client = live.client()
        request_id = predicted(client, mixed_rows[:3], "?explain=true")
        replay = client.request("POST", f"/explanations/{request_id}/replay").json()
        assert replay["equal"] is True, replay
        keyed = json.loads(stored(live, request_id).part("subjects"))
        store = live.runtime.evidence.store
        erase(store, [("default", request_id)], replace(ERASURE, subject=keyed[0]))
        assert json.loads(stored(live, request_id).part("subjects")) == [None, *keyed[1:]]
