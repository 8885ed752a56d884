import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evidence import BadCursorError
from service.evidence.listing import decode_cursor, encode_cursor
from service.uuid7 import uuid7


@given(st.integers(0, 2**57))
def test_a_cursor_leads_back_to_its_place(received_us: int) -> None:
    event_id = uuid7()
    assert decode_cursor(encode_cursor(received_us, event_id)) == (received_us, event_id)


@given(st.text())
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadCursorError):
        decode_cursor(text)


@pytest.mark.parametrize(
    "packed",
    [
        bytes(24),
        b"\xff" * 8 + bytes.fromhex("019aa0c20000700080000000000000aa"),
        bytes(8) + bytes.fromhex("019aa0c20000400080000000000000aa"),
    ],
    ids=["zeros", "time out of range", "not a version 7"],
)
def test_a_place_that_cannot_be_is_refused(packed: bytes) -> None:
    with pytest.raises(BadCursorError):
        decode_cursor(base64.urlsafe_b64encode(packed).decode())


def test_a_cut_or_damaged_cursor_is_refused() -> None:
    cursor = encode_cursor(1_772_366_400_000_000, uuid7())
    for damaged in (cursor[:-1], cursor + "A", "!" + cursor[1:], "é" + cursor[1:]):
        with pytest.raises(BadCursorError):
            decode_cursor(damaged)
