"""The Python client against the running service, and against one that fails."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from disposals import ERASURE
from later import NO_INLINE, Worker
from live_app import LiveApp, live_app
from problems import MARKER
from relays import relay_to
from servers import wait_until

from service.auth import KeyFile
from service.client import (
    AsyncClient,
    Client,
    ConflictError,
    GoneError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    NoValuesError,
    QuotaError,
    Repeats,
    StillPendingError,
    UnreachableError,
)
from service.disposal import erase
from service.runtime import Runtime

Instance = dict[str, Any]
ONCE = Repeats(deadline_seconds=0)


@pytest.fixture(scope="module")
def client(live: LiveApp) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[LiveApp]:
    """Every explanation is queued, and nobody computes it."""
    data_dir = tmp_path_factory.mktemp("slow")
    settings = {"redis_url": f"unix://{data_dir / 'nobody'}", **NO_INLINE}
    with live_app(data_dir, registry=demo_registry, **settings) as app:
        yield app


def test_a_prediction_is_explained_and_read_again(client: Client, rows: list[Instance]) -> None:
    made = client.predict(rows[:2], explain=True, top=3)
    assert made.explanation is not None
    assert made.explanation.is_complete
    assert len(made.predictions) == 2
    assert [len(entries or ()) for entries in made.explanation.top] == [3, 3]
    values = np.array(made.explanation.values)
    assert made.explanation.to_shap().values.tolist() == values[..., 0].tolist()
    stored = client.explanation(made.request_id)
    assert stored.explanation is not None
    assert stored.explanation.body == made.explanation.body
    assert stored.explanation.instances == rows[:2] == made.explanation.instances
    assert stored.record.model == made.model
    assert stored.predictions == made.predictions
    assert client.wait_for(made.request_id, timeout=0).record == stored.record


def test_a_prediction_alone_has_no_explanation(client: Client, rows: list[Instance]) -> None:
    made = client.predict(rows[:1])
    assert made.explanation is None
    assert client.explanation(made.request_id).explanation is None
    assert not client.explanation(made.request_id).is_pending


def test_cells_are_taken_as_tables_have_them(client: Client, mixed_rows: list[Instance]) -> None:
    row = next(row for row in mixed_rows if row["texture"] is None)
    as_table = {**row, "texture": float("nan"), "visits": np.int64(row["visits"])}
    made = client.predict([as_table], model="mixed", explain=True)
    assert client.explanation(made.request_id).record.instances == [row]
    assert made.explanation is not None
    assert made.explanation.instances == [row]


def test_the_same_id_gives_the_first_answer_again(client: Client, rows: list[Instance]) -> None:
    first = client.predict(rows[:1], request_id="client-twice-01")
    again = client.predict(rows[:1], request_id="client-twice-01")
    assert (first.is_replay, again.is_replay) == (False, True)
    assert again.answer == first.answer
    with pytest.raises(ConflictError) as caught:
        client.predict(rows[1:2], request_id="client-twice-01")
    assert caught.value.code == "request_id_conflict"
    assert not caught.value.may_pass_later


def test_what_is_wrong_is_told_by_pointers_and_never_quoted(client: Client) -> None:
    with pytest.raises(InvalidError) as caught:
        client.predict([{MARKER: MARKER}] * 5)
    refused = caught.value
    assert (refused.status, refused.code) == (422, "invalid_content")
    assert "/instances/0/mean radius" in refused.pointers
    assert f"and {len(refused.pointers) - 3} more" in str(refused)
    assert refused.request_id is not None
    assert MARKER not in repr(refused) + str(refused) + repr(vars(refused))


def test_records_are_listed_over_pages(
    client: Client, rows: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = datetime.now(UTC)
    made = [client.predict(rows[:1]).request_id for _ in range(5)]
    monkeypatch.setattr("service.client.calls.PAGE", 2)
    found = [item.request_id for item in client.explanations(since=began)]
    assert found == made[::-1]
    assert not list(client.explanations(until=began - timedelta(days=1)))
    assert not list(client.explanations(since=began, status="failed"))
    assert len(list(client.explanations(since=began, model="breast_cancer"))) == 5


def test_the_proof_is_waited_for(client: Client, rows: list[Instance]) -> None:
    request_id = client.predict(rows[:1]).request_id
    proof = client.proof(request_id)
    assert proof.request_id == request_id
    assert any(request_id in (entry.payload or "") for entry in proof.entries)


def test_votes_are_stored_and_replaced(live: LiveApp, client: Client, rows: list[Instance]) -> None:
    request_id = client.predict(rows[:2], explain=True).request_id
    client.feedback(request_id, 2, "too long")
    client.feedback(request_id, 4)
    client.labels(request_id, ["benign", None])
    votes = live.client().get(f"/explanations/{request_id}/feedback").json()
    assert [vote["rating"] for vote in votes["feedback"]] == [4]
    assert [vote["labels"] for vote in votes["labels"]] == [["benign", None]]
    with pytest.raises(InvalidError) as caught:
        client.feedback(request_id, 6)
    assert caught.value.pointers == ("/rating",)


def test_models_come_with_a_request_that_works(client: Client) -> None:
    assert {model.name for model in client.models()} == {"breast_cancer", "mixed"}
    model = client.model("mixed")
    assert client.predict(model.sample_request.instances, model="mixed").predictions
    with pytest.raises(NotFoundError):
        client.model("no/such model?")


def test_keys_are_sent_and_never_shown(keyed: Any, rows: list[Instance]) -> None:
    with Client(keyed.live.url, key=keyed.keys["alice"]) as alice:
        request_id = alice.predict(rows[:1]).request_id
        assert alice.explanation(request_id).request_id == request_id
        with pytest.raises(NotAllowedError) as caught:
            list(alice.explanations())
        assert caught.value.code == "forbidden"
    with Client(keyed.live.url, key=keyed.keys["bob"]) as bob, pytest.raises(NotFoundError):
        bob.explanation(request_id)
    with Client(keyed.live.url) as nobody, pytest.raises(NotAllowedError):
        nobody.models()
    with Client(keyed.live.url, key="secret\n", repeats=ONCE) as broken:
        with pytest.raises(UnreachableError) as unsent:
            broken.models()
        assert "secret" not in str(unsent.value)
        assert unsent.value.__cause__ is unsent.value.__context__ is None


def test_another_tenant_of_the_key_is_read(keyed: Any, rows: list[Instance]) -> None:
    with Client(keyed.live.url, key=keyed.keys["eve"]) as eve:
        request_id = eve.predict(rows[:1]).request_id
    with Client(keyed.live.url, key=keyed.keys["both"], tenant="elsewhere") as both:
        assert both.explanation(request_id).request_id == request_id
        assert request_id in [item.request_id for item in both.explanations()]
        assert both.proof(request_id).request_id == request_id
    with Client(keyed.live.url, key=keyed.keys["both"]) as both, pytest.raises(NotFoundError):
        both.explanation(request_id)


def test_a_used_up_quota_is_waited_out_or_raised(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    now, statuses, keys = [0.0], [], tmp_path / "keys.json"

    def stop_the_clock(runtime: Runtime) -> None:
        runtime.predicting.quotas.clock = lambda: now[0]

    def go_on(response: httpx.Response) -> None:
        statuses.append(response.status_code)
        now[0] += float(response.headers.get("retry-after", 0))

    content, key = KeyFile().with_key("app", ("predict",), predict_per_minute=60)
    content.write(keys)
    with live_app(
        tmp_path, registry=demo_registry, api_keys_file=keys, customise=stop_the_clock
    ) as live:
        with Client(live.url, key=key, repeats=ONCE) as hasty:
            hasty.predict(rows[:60])
            with pytest.raises(QuotaError) as caught:
                hasty.predict(rows[:2])
        assert (caught.value.retry_after_seconds, caught.value.code) == (2, "quota_exceeded")
        bounded = Repeats(longest_pause_seconds=1)
        with Client(live.url, key=key, repeats=bounded) as other, pytest.raises(QuotaError):
            other.predict(rows[:2])
        with Client(live.url, key=key, event_hooks={"response": [go_on]}) as patient:
            started = time.monotonic()
            assert patient.predict(rows[:1]).predictions
            assert statuses == [429, 200]
            assert time.monotonic() - started >= 1  # as Retry-After said


def test_what_was_erased_is_gone_and_the_rest_is_read(
    live: LiveApp, client: Client, mixed_rows: list[Instance]
) -> None:
    store = live.runtime.evidence.store
    made = client.predict(
        mixed_rows[:2], model="mixed", explain=True, subjects=["client-anna", None]
    )
    found = store.record("default", made.request_id)
    assert found is not None
    (anna, _) = json.loads(found.decision.part("subjects"))
    erase(store, [("default", made.request_id)], replace(ERASURE, subject=anna))
    stored = client.explanation(made.request_id)
    assert stored.record.erased_in_part
    assert [prediction is None for prediction in stored.predictions] == [True, False]
    assert stored.explanation is not None
    assert stored.explanation.values[0] is None
    assert np.isnan(stored.explanation.to_shap().values[0]).all()
    assert not np.isnan(stored.explanation.to_shap().values[1]).any()
    assert set(stored.explanation.to_frame()["instance"]) == {1}
    whole = client.predict(mixed_rows[:1], model="mixed").request_id
    erase(store, [("default", whole)], ERASURE)
    with pytest.raises(GoneError) as caught:
        client.explanation(whole)
    assert caught.value.status == 410


def test_a_pending_explanation_is_there_once_a_worker_had_it(
    slow: LiveApp, rows: list[Instance]
) -> None:
    with Client(slow.url) as client:
        made = client.predict(rows[:1], explain=True, request_id="client-later-01", wait=0)
        assert made.explanation is not None
        assert made.explanation.is_pending
        with pytest.raises(NoValuesError, match="pending"):
            made.explanation.to_shap()
        assert client.explanation(made.request_id).is_pending
        with pytest.raises(StillPendingError):
            client.wait_for(made.request_id, timeout=0.1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.wait_for, made.request_id, 60)
            wait_until(lambda: slow.runtime.metrics.http_active_now["GET"] == 1)
            Worker(slow).complete(made.request_id)
            stored = waiting.result()
    assert stored.explanation is not None
    assert stored.explanation.is_complete
    assert np.array(stored.explanation.values).shape == (1, 30, 1)


def test_a_prediction_waits_on_by_asking_for_its_record(
    slow: LiveApp, rows: list[Instance]
) -> None:
    with Client(slow.url) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            client.predict, rows[:1], explain=True, request_id="client-later-02", wait=60.5
        )
        wait_until(lambda: slow.runtime.evidence.store.record("default", "client-later-02"))
        Worker(slow).complete("client-later-02")
        made = asked.result()
        assert made.explanation is not None
        assert made.explanation.is_complete
        short = client.predict(rows[:1], explain=True, wait=0.1)
        assert short.explanation is not None
        assert short.explanation.is_pending


def test_a_prediction_is_followed_where_it_was_stored(slow: LiveApp, rows: list[Instance]) -> None:
    asked: list[httpx.Request] = []
    hooks = {"request": [asked.append]}
    with Client(slow.url, tenant="elsewhere", event_hooks=hooks) as client:
        made = client.predict(rows[:1], explain=True, wait=0.2)
    assert made.explanation is not None
    assert made.explanation.is_pending
    assert [request.method for request in asked][:2] == ["POST", "GET"]
    assert not any("tenant" in request.url.params for request in asked)


async def test_many_are_asked_at_once_and_each_gets_its_own(
    live: LiveApp, client: Client, rows: list[Instance]
) -> None:
    async with AsyncClient(live.url) as many:
        answers = await asyncio.gather(*(many.predict([row], explain=True) for row in rows))
        expected = client.predict(rows, explain=True)
        assert [answer.predictions[0] for answer in answers] == expected.predictions
        assert expected.explanation is not None
        assert len({answer.request_id for answer in answers}) == len(rows)
        for answer, values in zip(answers, expected.explanation.values, strict=True):
            assert answer.explanation is not None
            assert answer.explanation.values == [values]


async def test_the_asynchronous_client_does_what_the_other_does(
    live: LiveApp, rows: list[Instance]
) -> None:
    with relay_to(live.url, "hang up") as relay:
        async with AsyncClient(relay.url) as client:
            began = datetime.now(UTC)
            made = await client.predict(rows[:1], explain=True, wait=1)
            assert (await client.wait_for(made.request_id)).record == (
                await client.explanation(made.request_id, wait=1)
            ).record
            assert (await client.proof(made.request_id)).request_id == made.request_id
            await client.feedback(made.request_id, 5)
            await client.labels(made.request_id, ["benign"])
            assert [item.request_id async for item in client.explanations(since=began)] == [
                made.request_id
            ]
            model = await client.model("breast_cancer")
            assert model in await client.models()
            with pytest.raises(InvalidError):
                await client.predict([])
