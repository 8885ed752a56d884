"""The Python client where the service, or what is between, does not answer as it should."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from live_app import LiveApp
from problems import MARKER
from relays import relay_to

from service.client import (
    Client,
    ClientError,
    ServerError,
    UnavailableError,
    UnreachableError,
    UnreadableAnswerError,
)

Instance = dict[str, Any]


def canned(status: int, *headers: str, body: bytes = b"") -> bytes:
    head = "\r\n".join([f"HTTP/1.0 {status} -", *headers, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


def test_a_service_that_goes_away_and_comes_back_is_waited_for(
    live: LiveApp, rows: list[Instance]
) -> None:
    tried = threading.Semaphore(0)
    hooks = {"request": [lambda _: tried.release()]}
    with relay_to(live.url) as relay, Client(relay.url, event_hooks=hooks) as client:
        client.predict(rows[:1])
        relay.close()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.predict, rows[:1])
            for _ in range(3):  # once before, twice in vain
                tried.acquire()
            assert not asked.done()
            relay.open()
            assert asked.result().predictions


def test_a_lost_answer_is_asked_for_again_under_its_id(live: LiveApp, rows: list[Instance]) -> None:
    with relay_to(live.url, "lose the answer", "hang up") as relay, Client(relay.url) as client:
        made = client.predict(rows[:1], explain=True)
    assert relay.seen == [made.request_id] * 3
    assert made.is_replay
    with Client(live.url) as client:
        found = [item.request_id for item in client.explanations()]
    assert found.count(made.request_id) == 1


def test_what_would_be_done_twice_is_not_repeated(live: LiveApp, rows: list[Instance]) -> None:
    with Client(live.url) as client:
        made = client.predict(rows[:1])
    with relay_to(live.url, "lose the answer") as relay, Client(relay.url) as client:
        with pytest.raises(UnreachableError):
            client.counterfactuals(made.request_id)
        assert len(relay.seen) == 1


def test_only_what_may_pass_is_repeated(live: LiveApp, rows: list[Instance]) -> None:
    answers: dict[type[ClientError], bytes] = {
        ServerError: canned(502, "Retry-After: 0", body=MARKER.encode()),
        UnreadableAnswerError: canned(200, body=b'{"schema_version": "%s"}' % MARKER.encode()),
        ClientError: canned(302, "Location: http://127.0.0.1:9/"),
    }
    for kind, answer in answers.items():
        with relay_to(live.url, answer) as relay, Client(relay.url) as client:
            with pytest.raises(kind) as caught:
                client.predict(rows[:1])
            assert len(relay.seen) == 1
            assert MARKER not in repr(caught.value) + repr(caught.value.__context__)


@pytest.mark.parametrize("retry_after", ["0", "nonsense", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_an_overloaded_service_is_asked_again(
    live: LiveApp, rows: list[Instance], retry_after: str
) -> None:
    busy = canned(503, f"Retry-After: {retry_after}")
    with relay_to(live.url, busy, busy) as relay, Client(relay.url) as client:
        assert client.predict(rows[:1]).predictions
        assert len(relay.seen) == 3


def test_a_pause_beyond_the_deadline_is_raised_at_once(live: LiveApp, rows: list[Instance]) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    for retry_after in ("3600", f"{later:%a, %d %b %Y %H:%M:%S} GMT"):
        busy = canned(503, f"Retry-After: {retry_after}")
        with relay_to(live.url, busy) as relay, Client(relay.url) as client:
            with pytest.raises(UnavailableError) as caught:
                client.predict(rows[:1])
            assert len(relay.seen) == 1
            assert 3000 < (caught.value.retry_after_seconds or 0) <= 3600


def test_no_answer_in_time_is_not_asked_for_again() -> None:
    with relay_to("http://127.0.0.1:9") as relay:
        silent = threading.Event()
        relay.serve = lambda _: (relay.seen.append(""), silent.wait())  # type: ignore[method-assign,assign]
        with Client(relay.url, timeout_seconds=0.2) as client, pytest.raises(UnreachableError):
            client.models()
        silent.set()
        assert len(relay.seen) == 1


def test_members_of_a_later_release_are_left_out(live: LiveApp, rows: list[Instance]) -> None:
    answer = live.client().predict(rows[:1]).json()
    later: dict[str, Any] = json.loads(json.dumps(answer))
    later["since_2030"] = later["explanation"]["since_2030"] = later["model"]["since_2030"] = 1
    body = json.dumps(later).encode()
    with relay_to(live.url, canned(200, body=body)) as relay, Client(relay.url) as client:
        made = client.predict(rows[:1], explain=True)
    assert made.answer.model_dump(mode="json", by_alias=True, exclude_unset=True) == answer


def test_members_that_are_missing_are_told_by_name(live: LiveApp, rows: list[Instance]) -> None:
    answer = live.client().predict(rows[:1]).json()
    del answer["explanation"]["caveat"]
    body = json.dumps(answer).encode()
    with (
        relay_to(live.url, canned(200, body=body)) as relay,
        Client(relay.url) as client,
        pytest.raises(UnreadableAnswerError, match="caveat"),
    ):
        client.predict(rows[:1], explain=True)
