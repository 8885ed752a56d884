"""What is refused from its head alone, and what the refusal says."""

import json

import pytest

from service import errors
from service.admission import Admission
from service.errors import OverloadedError, QuotaExceededError, ServiceError
from service.http import problem_response, refusal_response

RETRIED = frozenset({429, 503})


def every_error() -> list[type[ServiceError]]:
    found, left = [], [ServiceError]
    while left:
        kind = left.pop()
        found.append(kind)
        left += kind.__subclasses__()
    return sorted((k for k in found if k.__module__ == errors.__name__), key=lambda k: k.__name__)


def test_every_refusal_that_passes_says_when_to_come_back() -> None:
    refusing = [kind for kind in every_error() if kind.status in RETRIED]
    assert {OverloadedError, QuotaExceededError} <= set(refusing)
    for kind in refusing:
        response = problem_response(kind(), "0123456789")
        assert int(response.headers["retry-after"]) >= 1, kind.__name__


@pytest.mark.parametrize("url", [b"/predict", b"/models/a/predict?explain=true", b"/explanations"])
def test_one_more_than_the_most_is_refused(url: bytes) -> None:
    admission = Admission(2)
    assert not admission.refuses(url, 1)
    assert admission.refuses(url, 2)


@pytest.mark.parametrize("url", [b"/livez", b"/readyz", b"/metrics", b"/v2/health/ready"])
def test_what_looks_after_the_service_is_always_answered(url: bytes) -> None:
    assert not Admission(1).refuses(url, 10_000)


def test_a_request_at_rest_takes_nobodys_place() -> None:
    admission = Admission(1)
    with admission.at_rest():
        assert not admission.refuses(b"/predict", 1)
        assert admission.refuses(b"/predict", 2)
    assert admission.refuses(b"/predict", 1)


def test_a_refusal_is_the_problem_the_application_would_send() -> None:
    headers = [(b"host", b"localhost"), (b"x-request-id", b"chosen-by-client")]
    answer = Admission().refusal("POST", b"/predict", headers, closes=False)
    head, _, body = answer.partition(b"\r\n\r\n")
    expected = problem_response(OverloadedError(), "chosen-by-client")
    assert json.loads(body) == json.loads(bytes(expected.body))
    assert head.startswith(b"HTTP/1.1 503 ")
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert dict(expected.raw_headers).items() <= lines.items()
    assert lines[b"x-request-id"] == b"chosen-by-client"
    assert lines[b"x-content-type-options"] == b"nosniff"
    assert b"connection" not in lines


@pytest.mark.parametrize("path", ["/v1/models/a:predict", "/v2/models/a/infer", "/v2"])
def test_a_refusal_on_a_protocols_path_is_what_that_path_answers(path: str) -> None:
    answer = Admission().refusal("POST", path.encode() + b"?x=1", [], closes=False)
    head, _, body = answer.partition(b"\r\n\r\n")
    expected = refusal_response(OverloadedError(), "", path)
    assert json.loads(body) == json.loads(bytes(expected.body))
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert dict(expected.raw_headers).items() <= lines.items()
    assert b"x-request-id" in lines


@pytest.mark.parametrize("chosen", [b"a b\xff", b"4111111111111111"])
def test_an_id_that_could_not_be_used_is_not_sent_back(chosen: bytes) -> None:
    headers = [(b"x-request-id", chosen)]
    answer = Admission().refusal("POST", b"/predict", headers, closes=True)
    assert chosen not in answer
    assert b"\r\nconnection: close\r\n" in answer
    ids = {json.loads(answer.partition(b"\r\n\r\n")[2])["request_id"] for _ in range(2)}
    assert len(ids.pop()) == 36


def test_a_refused_head_request_has_no_body() -> None:
    answer = Admission().refusal("HEAD", b"/explanations", [], closes=False)
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "url", "counted"),
    [
        ("POST", b"/predict?explain=true", ("POST", "/predict")),
        ("POST", b"/models/a.b/predict", ("POST", "/models/{name}/predict")),
        ("GET", b"/explanations?limit=2", ("GET", "/explanations")),
        ("GET", b"/explanations/0123456789", ("GET", "/explanations/{request_id}")),
        ("POST", b"/v1/models/a:explain", ("POST", "/v1/models/{name}:explain")),
        ("POST", b"/v2/models/a/infer", ("POST", "/v2/models/{name}/infer")),
        ("POST", b"/predicted", ("POST", "unmatched")),
        ("BREW", b"/made/up/by/clients", ("OTHER", "unmatched")),
    ],
)
def test_a_refusal_is_counted_under_its_route(
    method: str, url: bytes, counted: tuple[str, str]
) -> None:
    found = []
    admission = Admission(on_refusal=lambda *refused: found.append(refused))
    admission.refusal(method, url, [], closes=False)
    assert found == [(*counted, 503)]
