"""What every refusal looks like, whoever refuses."""

from typing import Any

from servers import Reply

MARKER = "PLANTED-7f3a"
"""Planted in what is sent; it may come back nowhere."""

FIELDS = {"type", "title", "status", "detail", "instance", "request_id", "errors"}
OF_GONE = {"record_status", "erased_at", "header"}
"""Only of a record that is erased."""


def assert_problem(reply: Reply, status: int, code: str | None = None) -> dict[str, Any]:
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert set(problem) - OF_GONE == FIELDS
    assert (set(problem) >= OF_GONE) == ("record_status" in problem)
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert problem["instance"] == f"urn:explaind:request:{problem['request_id']}"
    if code is not None:
        assert problem["type"] == f"urn:explaind:problem:{code}"
    for error in problem["errors"]:
        assert set(error) == {"pointer", "detail", "code"}
    assert MARKER not in reply.body.decode() + repr(reply.headers)
    return problem


def assert_protocol_error(reply: Reply, status: int) -> str:
    """What KServe V1 and the Open Inference Protocol say when they refuse: one sentence."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json()) == {"error"}
    assert MARKER not in reply.body.decode() + repr(reply.headers)
    error: str = reply.json()["error"]
    assert error
    return error


def assert_refused(reply: Reply, path: str, status: int, code: str) -> None:
    """Whichever of both a path speaks."""
    if path.startswith(("/v1", "/v2")):
        assert_protocol_error(reply, status)
    else:
        assert_problem(reply, status, code)
