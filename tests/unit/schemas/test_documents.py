import pytest

from schemas import ExplainRequest, InvalidContentError, NotStrictJsonError, read_document


def test_a_document_is_read() -> None:
    read = read_document(ExplainRequest, b'{"request_id":"request-1","method":"exact"}')
    assert (read.request_id, read.method) == ("request-1", "exact")
    assert read_document(ExplainRequest, b'{"request_id":"request-1"}').method is None


@pytest.mark.parametrize("body", [b"", b"{", b'{"a":1,"a":2}', b"\xff", b"[NaN]"])
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotStrictJsonError):
        read_document(ExplainRequest, body)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"7", [""]),
        (b"{}", ["/request_id"]),
        (b'{"request_id":"x/y-PLANTED"}', ["/request_id"]),
        (b'{"request_id":"request-1","method":["PLANTED"]}', ["/method"]),
        (b'{"request_id":"request-1","PLANTED":1}', [""]),
        (b'{"request_id":1,"method":2}', ["/request_id", "/method"]),
    ],
)
def test_what_does_not_fit_is_named_and_never_quoted(body: bytes, pointers: list[str]) -> None:
    with pytest.raises(InvalidContentError) as caught:
        read_document(ExplainRequest, body)
    assert [error.pointer for error in caught.value.errors] == pointers
    assert "PLANTED" not in repr(caught.value.errors) + repr(caught.value.__cause__)
    assert caught.value.__context__ is None
