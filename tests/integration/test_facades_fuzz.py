"""Hostile bytes in the words of KServe V1 and the Open Inference Protocol: never a server error."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from exploring import explore
from inference import as_bytes, by_column, columns, post_bytes
from live_app import LiveApp
from mutations import mutated
from servers import JSON, Client, Reply

Instance = dict[str, Any]
Request = tuple[str, bytes, dict[str, str]]


@pytest.fixture
def requests_to_mutate(
    live: LiveApp, rows: list[Instance], mixed_rows: list[Instance]
) -> list[Request]:
    client, found = live.client(), []
    whole = [row for row in mixed_rows if row["site"] is not None][:2]
    for model, instances in (("breast_cancer", rows[:2]), ("mixed", whole)):
        lists = [list(row.values()) for row in instances]
        for sent in (instances, lists):
            body = json.dumps({"instances": sent, "subjects": ["a", None]}).encode()
            found.append((f"/v1/models/{model}:explain", body, JSON))
        tensors = by_column(instances, columns(client, model))
        asked = {"parameters": {"explain": True, "binary_data_output": True, "top": 2}}
        path = f"/v2/models/{model}/infer"
        found.append((path, json.dumps({"inputs": tensors, **asked}).encode(), JSON))
        heads, binary = as_bytes(tensors)
        head = json.dumps({"inputs": heads, **asked}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        found.append((path, head + binary, length))
    return found


def send(client: Client, request: Request) -> Reply:
    path, body, headers = request
    return client.request("POST", path, body, headers)


def test_what_is_mutated_here_is_answered_whole(
    live: LiveApp, requests_to_mutate: list[Request]
) -> None:
    for request in requests_to_mutate:
        assert send(live.client(), request).status == 200


def test_mutated_bodies_are_answered_or_refused_in_one_sentence(
    live: LiveApp, requests_to_mutate: list[Request]
) -> None:
    rng, client, refused = random.Random(13), live.client(), 0
    for _ in range(1200):
        path, body, headers = rng.choice(requests_to_mutate)
        reply = send(client, (path, mutated(rng, body), headers))
        assert reply.status in {200, 400, 422}, reply.body
        if reply.status != 200:
            refused += 1
            assert set(reply.json()) == {"error"}
    assert refused > 700


SCALARS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**350, 1.5, 1e308, -0.0, "", "x", "FP64"),
    *([], [None], [[]], [1.0], [[1.0, 2.0]], {}, {"explain": True}, {"binary_data_size": 8}),
]


def replaced(rng: random.Random, node: Any) -> Any:
    """The same document with one node put in another's place."""
    if isinstance(node, dict) and node and rng.random() < 0.8:
        name = rng.choice(list(node))
        if rng.random() < 0.1:
            return {key: value for key, value in node.items() if key != name}
        return {**node, name: replaced(rng, node[name])}
    if isinstance(node, list) and node and rng.random() < 0.8:
        place = rng.randrange(len(node))
        return [*node[:place], replaced(rng, node[place]), *node[place + 1 :]]
    return rng.choice(SCALARS)


def repeated(change: Callable[[Any], Any], document: Any, times: int) -> Any:
    for _ in range(times):
        document = change(document)
    return document


def test_documents_with_other_values_in_any_place_are_answered_or_refused(
    live: LiveApp, requests_to_mutate: list[Request]
) -> None:
    rng, client, seen = random.Random(17), live.client(), set()
    for _ in range(1500):
        path, body, headers = rng.choice(requests_to_mutate)
        length = int(headers.get("Inference-Header-Content-Length", len(body)))
        document = json.loads(body[:length])
        document = repeated(lambda node: replaced(rng, node), document, rng.randint(1, 3))
        if headers is JSON:
            reply = send(client, (path, json.dumps(document).encode(), JSON))
        else:
            reply = post_bytes(client, path, document, body[length:])
        assert reply.status in {200, 422}, (document, reply.body)
        seen.add(reply.status)
    assert seen == {200, 422}


@pytest.mark.drill
def test_generated_requests_agree_with_the_openapi_document(live: LiveApp) -> None:
    assert explore(live.url, examples=20, only=("/v1", "/v2")) > 200
