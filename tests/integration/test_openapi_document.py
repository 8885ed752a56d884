"""What POST /predict's document says of headers, against the headers that come."""

from pathlib import Path
from typing import Any

import pytest
from live_app import live_app
from servers import Reply
from tables import breast_cancer, instances_of

from service.guards import GUARDS

ROWS = instances_of(breast_cancer()[0].iloc[:2])
OF_EVERY_ANSWER = {name.decode() for name in GUARDS}
OF_HTTP = OF_EVERY_ANSWER | {
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
}
PATHS = ("/predict", "/models/breast_cancer/predict")


@pytest.fixture
def found(data_dir: Path) -> tuple[dict[str, Any], list[Reply]]:
    """The document, and answers of a service where every explanation waits for a worker."""
    named = {"X-Request-ID": "named-request", "Prefer": "respond-async"}
    with live_app(data_dir, inline_budget_seconds=1e-9, max_body_bytes=4000) as live:
        client = live.client()
        replies = [
            client.predict(ROWS[:1], headers=named),
            client.predict(ROWS[:1], headers=named),
            client.predict(ROWS[1:], headers=named),
            client.predict(ROWS[:1], query=""),
            client.predict(ROWS[:1], query="?top=x"),
            client.predict(ROWS * 9),
            client.predict(ROWS[:1], headers={"Content-Type": "text/plain"}),
            client.predict(ROWS[:1], headers={"X-Request-ID": "short"}),
        ]
        document: dict[str, Any] = client.get("/openapi.json").json()
    assert [reply.status for reply in replies] == [200, 200, 409, 200, 422, 413, 415, 400]
    return document, replies


def described(document: dict[str, Any], path: str, status: int) -> set[str]:
    """Names of a response's headers, each of which the components describe."""
    headers = document["paths"][path]["post"]["responses"][str(status)]["headers"]
    for name, reference in headers.items():
        assert reference == {"$ref": f"#/components/headers/{name}"}
        assert {"description", "schema"} <= document["components"]["headers"][name].keys()
    return {name.lower() for name in headers}


@pytest.mark.parametrize("path", PATHS)
def test_every_header_that_comes_is_described_where_it_comes(
    found: tuple[dict[str, Any], list[Reply]], path: str
) -> None:
    document, replies = found
    for reply in replies:
        assert reply.headers.keys() - OF_HTTP <= described(document, path, reply.status)
    sent = {name for reply in replies if reply.status == 200 for name in reply.headers}
    assert described(document, path, 200) == sent - OF_HTTP
    for status in (409, 503):
        assert "retry-after" in described(document, path, status)


@pytest.mark.parametrize("path", PATHS)
def test_every_header_that_is_read_is_a_parameter_and_pending_is_explained(
    found: tuple[dict[str, Any], list[Reply]], path: str
) -> None:
    operation = found[0]["paths"][path]["post"]
    headers = {p["name"]: p["description"] for p in operation["parameters"] if p["in"] == "header"}
    assert set(headers) == {"X-Request-ID", "Prefer", "traceparent"}
    assert all(word in headers["Prefer"] for word in ("wait=N", "respond-async"))
    assert all(word in operation["description"] for word in ("pending", "Location"))
