import math

import pytest

from schemas.strict_json import MAX_DEPTH, NotStrictJsonError, loads

MARKER = "pl4nted"


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, true, null, "x"]}', {"a": [1, 2.5, True, None, "x"]}),
        (b' \t\r\n"\\ud83d\\ude00" ', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'"\\u0000"', "\0"),
        (b'{"": {"": 1}}', {"": {"": 1}}),
        (nested(3), [[[]]]),
    ],
)
def test_strict_json_is_read(body: bytes, value: object) -> None:
    assert loads(body) == value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "syntax error at line 1, column 1"),
        (b'{"a": 1,}', "syntax error"),
        (b"01", "syntax error"),
        (b"1 2", "syntax error"),
        (b'"a\nb"', "syntax error"),
        (b"{'a': 1}", "syntax error"),
        (b"NaN", "NaN"),
        (b"[1, -Infinity]", "Infinity"),
        (b'{"a": Infinity}', "Infinity"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\uDFFF": 1}', "surrogate"),
        (b'["\\ude00\\ud83d"]', "surrogate"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'[{"b": {"a": 1, "\\u0061": 2}}]', "twice"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xff"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "syntax error"),
        (nested(MAX_DEPTH + 1), "nested deeper"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper"),
        (b"[" * 2**20, "nested deeper"),
        (b'{"a":' * 2**18, "nested deeper"),
    ],
)
def test_anything_else_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(NotStrictJsonError) as caught:
        loads(body)
    assert reason in caught.value.reason


def test_the_deepest_document_allowed_is_read() -> None:
    assert loads(nested(MAX_DEPTH)) is not None


@pytest.mark.parametrize(
    ("number", "value"),
    [(b"1e400", math.inf), (b"-1e400", -math.inf), (b"9" * 5000, math.inf), (b"-0", 0)],
)
def test_numbers_beyond_floats_are_infinite(number: bytes, value: float) -> None:
    assert loads(number) == value


def test_integers_stay_exact_below_the_float_range() -> None:
    assert loads(b"9007199254740993") == 2**53 + 1


@pytest.mark.parametrize(
    "body",
    [
        f'{{"{MARKER}": {MARKER}}}',
        f'{{"{MARKER}": 1, "{MARKER}": 2}}',
        f'["{MARKER}\\ud800"]',
        f'"{MARKER}',
        f'"{MARKER}\\x"',
    ],
)
def test_refusals_hold_nothing_of_the_document(body: str) -> None:
    with pytest.raises(NotStrictJsonError) as caught:
        loads(body.encode())
    assert MARKER not in repr(caught.value)
    assert caught.value.__context__ is None
