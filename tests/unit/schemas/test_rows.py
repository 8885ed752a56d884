import json
import math
import traceback

import numpy as np
import orjson
import pytest

from schemas.model_schema import Column, ModelSchema
from schemas.problem import InvalidContentError
from schemas.rows import DecodedBody, RowCodec, SeenRanges
from schemas.strict_json import NotStrictJsonError

MARKER = "pl4nted"
SCHEMA = ModelSchema(
    (
        Column("age", "integer", minimum=18, maximum=120),
        Column("amount", "number"),
        Column("rate", "number", nullable=True, maximum=0.5),
        Column("foreign", "boolean"),
        Column("status", "category", levels=("1", "no")),
        Column("rooms", "category", levels=(1, 2), nullable=True),
        Column("grade", "category", levels=(0.5, 1.0), nullable=True),
        Column("is_new", "category", levels=(False, True), nullable=True),
        Column("city", "category", levels=("Ulm", "Bonn"), nullable=True, unknown="missing"),
        Column("zone", "category", levels=(1, 2), nullable=True, unknown="ignore"),
    )
)
GOOD: dict[str, object] = {"age": 30, "amount": 1.5, "foreign": False, "status": "no"}
CODEC = RowCodec(SCHEMA)


def decode(body: bytes | object, codec: RowCodec = CODEC) -> DecodedBody:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return codec.decode(raw, max_instances=3)


def refusals(body: bytes | object, codec: RowCodec = CODEC) -> list[tuple[str, str]]:
    with pytest.raises(InvalidContentError) as caught:
        decode(body, codec)
    return [(error.pointer, error.code) for error in caught.value.errors]


def with_cell(column: str, literal: str) -> bytes:
    cells = {name: json.dumps(value) for name, value in GOOD.items()} | {column: literal}
    members = ", ".join(f"{json.dumps(name)}: {value}" for name, value in cells.items())
    return f'{{"instances": [{{{members}}}]}}'.encode()


def test_rows_and_codes_come_in_schema_order_whatever_the_order_of_keys() -> None:
    given = {**GOOD, "rooms": 2, "grade": 0.5, "is_new": True, "city": "Bonn", "zone": 1}
    forwards, backwards = (
        decode({"instances": [dict(items)]}) for items in (given.items(), [*given.items()][::-1])
    )
    assert forwards.rows == [(30, 1.5, None, False, "no", 2, 0.5, True, "Bonn", 1)]
    assert forwards.rows == backwards.rows
    matrix = np.array(forwards.codes, dtype=np.float64)
    np.testing.assert_array_equal(matrix, [[30, 1.5, math.nan, 0, 1, 1, 0, 1, 1, 0]])
    np.testing.assert_array_equal(matrix, np.array(backwards.codes, dtype=np.float64))


def test_what_is_left_out_or_null_is_missing() -> None:
    left_out = decode({"instances": [GOOD]})
    nulls = dict.fromkeys(["rate", "rooms", "grade", "is_new", "city", "zone"])
    assert decode({"instances": [GOOD | nulls]}).rows == left_out.rows
    assert np.isnan(np.array(left_out.codes, dtype=np.float64)).sum() == len(nulls)


def test_a_column_that_must_be_given_may_be_null_but_not_left_out() -> None:
    codec = RowCodec(ModelSchema((Column("x", "number", nullable=True, must_be_given=True),)))
    assert decode({"instances": [{"x": None}]}, codec).rows == [(None,)]
    assert refusals({"instances": [{}]}, codec) == [("/instances/0/x", "missing_column")]


@pytest.mark.parametrize(
    ("column", "literal", "value"),
    [
        ("age", "30.0", 30),
        ("age", "3e1", 30),
        ("amount", "-0", 0.0),
        ("amount", "7", 7.0),
        ("amount", "9007199254740992", 2.0**53),
        ("amount", "3.4028234663852886e38", 3.4028234663852886e38),
        ("amount", "1e-400", 0.0),
        ("rate", "0.5", 0.5),
        ("rate", "null", None),
        ("rooms", "2.0", 2),
        ("grade", "1", 1.0),
        ("city", '"Rom"', "Rom"),
        ("zone", "7", 7),
        ("zone", "7.0", 7),
        ("zone", "7.5", 7.5),
        ("status", '"\\u006eo"', "no"),
    ],
)
def test_values_are_stored_in_one_spelling(column: str, literal: str, value: object) -> None:
    stored = decode(with_cell(column, literal)).rows[0][SCHEMA.names.index(column)]
    assert stored == value
    assert type(stored) is type(value)


@pytest.mark.parametrize(
    ("column", "literal", "code"),
    [
        ("amount", '"1"', "not_a_number"),
        ("amount", "true", "not_a_number"),
        ("amount", "[1]", "not_a_number"),
        ("amount", "{}", "not_a_number"),
        ("amount", "null", "missing_value"),
        ("amount", "1e400", "not_finite"),
        ("amount", "-1e400", "not_finite"),
        ("amount", "3.5e38", "too_large"),
        ("amount", "-3.5e38", "too_small"),
        ("amount", "9007199254740993", "too_large"),
        ("amount", "-9007199254740993", "too_small"),
        pytest.param("amount", "9" * 5000, "not_finite", id="5000 digits"),
        ("age", "30.5", "not_an_integer"),
        ("age", "true", "not_an_integer"),
        ("age", '"30"', "not_an_integer"),
        ("age", "1e400", "not_finite"),
        ("age", "1e300", "too_large"),
        ("age", "-9007199254740993", "too_small"),
        ("age", "17", "below_minimum"),
        ("age", "121.0", "above_maximum"),
        ("rate", "0.51", "above_maximum"),
        ("foreign", "0", "not_a_boolean"),
        ("foreign", '"true"', "not_a_boolean"),
        ("foreign", "null", "missing_value"),
        ("status", "1", "not_text"),
        ("status", "null", "missing_value"),
        ("status", '"yes"', "unknown_category"),
        ("status", '"no "', "unknown_category"),
        ("rooms", "true", "not_a_number"),
        ("rooms", '"1"', "not_a_number"),
        ("rooms", "3", "unknown_category"),
        ("rooms", "1.5", "unknown_category"),
        ("grade", "true", "not_a_number"),
        ("grade", "0.25", "unknown_category"),
        ("is_new", "1", "not_a_boolean"),
        ("city", "5", "not_text"),
        ("zone", '"1"', "not_a_number"),
        ("zone", "1e400", "not_finite"),
        ("zone", "9007199254740993", "too_large"),
    ],
)
def test_a_wrong_value_is_refused_where_it_is(column: str, literal: str, code: str) -> None:
    assert refusals(with_cell(column, literal)) == [(f"/instances/0/{column}", code)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], [("", "wrong_type")]),
        (None, [("", "wrong_type")]),
        ({}, [("/instances", "no_instances")]),
        ({"instances": []}, [("/instances", "no_instances")]),
        ({"instances": None}, [("/instances", "wrong_type")]),
        ({"instances": GOOD}, [("/instances", "wrong_type")]),
        ({"instances": [GOOD] * 4}, [("/instances", "too_many_instances")]),
        ({"instances": [{}] * 4}, [("/instances", "too_many_instances")]),
        ({"instances": [GOOD, [1]]}, [("/instances/1", "wrong_type")]),
        ({"instances": [GOOD, None]}, [("/instances/1", "wrong_type")]),
        ({"instances": [GOOD], "rows": []}, [("", "unknown_member")]),
        ({"instances": [GOOD | {"x": 1, "y": 2}]}, [("/instances/0", "unknown_column")]),
        ({"instances": [GOOD | {"c0": 1}]}, [("/instances/0", "unknown_column")]),
        ({"instances": [GOOD], "subjects": None}, [("/subjects", "wrong_type")]),
        ({"instances": [GOOD], "subjects": "ann"}, [("/subjects", "wrong_type")]),
        ({"instances": [GOOD], "subjects": []}, [("/subjects", "wrong_length")]),
        ({"instances": [GOOD], "subjects": ["a", "b"]}, [("/subjects", "wrong_length")]),
        ({"instances": [GOOD], "subjects": [""]}, [("/subjects/0", "wrong_length")]),
        ({"instances": [GOOD], "subjects": ["a" * 257]}, [("/subjects/0", "wrong_length")]),
        ({"instances": [GOOD], "subjects": [1]}, [("/subjects/0", "not_text")]),
    ],
)
def test_a_wrong_body_is_refused_where_it_is(body: object, expected: list[tuple[str, str]]) -> None:
    assert refusals(body) == expected


def test_every_violation_of_a_body_is_listed() -> None:
    bad = {"age": 3, "status": None, "foreign": 1, "extra": 0}
    assert refusals({"instances": [GOOD, bad], "subjects": ["x", ""]}) == [
        ("/instances/1", "unknown_column"),
        ("/instances/1/age", "below_minimum"),
        ("/instances/1/amount", "missing_column"),
        ("/instances/1/foreign", "not_a_boolean"),
        ("/instances/1/status", "missing_value"),
        ("/subjects/1", "wrong_length"),
    ]


def test_at_most_a_hundred_violations_are_listed() -> None:
    body = json.dumps({"instances": [{}] * 1000, "subjects": [1] * 1000}).encode()
    with pytest.raises(InvalidContentError) as caught:
        CODEC.decode(body, max_instances=1000)
    assert len(caught.value.errors) == 100


def test_pointers_escape_column_names() -> None:
    codec = RowCodec(ModelSchema((Column("a/b~c", "number"), Column("", "number"))))
    assert refusals({"instances": [{"a/b~c": "", "": ""}]}, codec) == [
        ("/instances/0/a~1b~0c", "not_a_number"),
        ("/instances/0/", "not_a_number"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"instances": [{"age": NaN}]}',
        b'{"instances": [{"age": 30, "age": 30}]}',
        b'{"instances": [], "instances": []}',
        b'{"instances": [{"status": "\\ud800"}]}',
        b'{"instances": [], "deep": ' + b"[" * 40 + b"]" * 40 + b"}",
        b"[" * 2**20,
    ],
)
def test_what_is_no_strict_json_is_refused_before_its_content_is_judged(body: bytes) -> None:
    with pytest.raises(NotStrictJsonError):
        decode(body)


def test_a_key_given_twice_in_a_body_that_is_right_otherwise_is_refused() -> None:
    body = json.dumps({"instances": [GOOD]}).replace('"age"', '"age": 30, "\\u0061ge"')
    with pytest.raises(NotStrictJsonError):
        decode(body.encode())


def test_a_colon_hidden_by_an_escape_does_not_hide_a_key_given_twice() -> None:
    codec = RowCodec(ModelSchema((Column("a:b", "number"), Column("c", "number"))))
    with pytest.raises(NotStrictJsonError):
        decode(b'{"instances": [{"a\\u003ab": 1, "c": 2, "c": 3}]}', codec)


def test_colons_and_braces_inside_strings_change_nothing() -> None:
    names = ("a:b", "{", "c")
    codec = RowCodec(ModelSchema(tuple(Column(name, "number") for name in names)))
    body = {"instances": [{"a:b": 1, "{": 2, "c": 3}] * 2, "subjects": ["{user}:7", None]}
    decoded = decode(body, codec)
    assert decoded.rows == [(1.0, 2.0, 3.0)] * 2
    assert decoded.subjects == ["{user}:7", None]


def test_subjects_are_kept_beside_their_rows() -> None:
    body = {"instances": [GOOD, GOOD, GOOD], "subjects": ["ann", None, "é" * 256]}
    assert decode(body).subjects == ["ann", None, "é" * 256]
    assert decode({"instances": [GOOD]}).subjects is None


def test_as_many_instances_as_allowed_are_read() -> None:
    assert len(decode({"instances": [GOOD] * 3}).rows) == 3


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [GOOD | {MARKER: MARKER}]},
        {"instances": [GOOD | {"status": MARKER, "age": MARKER, "rate": {MARKER: 1}}]},
        {"instances": [GOOD], MARKER: MARKER},
        {"instances": [MARKER]},
        {"instances": [GOOD], "subjects": [[MARKER], {MARKER: MARKER}, MARKER * 99]},
        {"instances": MARKER},
        MARKER,
        [MARKER] * 2,
    ],
)
def test_refusals_hold_nothing_of_the_body(body: object) -> None:
    with pytest.raises(InvalidContentError) as caught:
        decode(body)
    error = caught.value
    assert MARKER not in repr(error.errors)
    assert MARKER not in "".join(traceback.format_exception(error))
    assert error.__context__ is None


def test_numbers_sent_are_not_echoed() -> None:
    with pytest.raises(InvalidContentError) as caught:
        decode({"instances": [GOOD | {"age": 987654.5, "amount": "987654", "rooms": 987654}]})
    assert "987654" not in repr(caught.value.errors)


def test_rows_are_written_in_schema_order_with_missing_as_null() -> None:
    written = CODEC.instances_json(decode(with_cell("age", "30.0")).rows)
    assert written.startswith(b'[{"age":30,"amount":1.5,"rate":null,"foreign":false,"status":"no",')
    assert list(orjson.loads(written)[0]) == list(SCHEMA.names)


def test_unlisted_levels_pass_with_their_code_and_a_warning() -> None:
    decoded = decode({"instances": [GOOD, GOOD | {"city": "Rom", "zone": 9}]})
    assert math.isnan(decoded.codes[1][8])
    assert decoded.codes[1][9] == -1.0
    assert CODEC.warnings(decoded, SeenRanges.of(SCHEMA, {})) == [
        {"pointer": "/instances/1/city", "code": "unseen_category"},
        {"pointer": "/instances/1/zone", "code": "unseen_category"},
    ]


def test_values_beyond_the_range_seen_are_warned_of() -> None:
    seen = SeenRanges.of(SCHEMA, {"age": (20, 40), "rate": (0.1, 0.2)})
    rows: list[dict[str, object]] = [
        {"age": 20, "rate": 0.2},
        {"age": 41, "rate": None},
        {"age": 19, "rate": 0.05},
    ]
    decoded = decode({"instances": [GOOD | row for row in rows]})
    assert CODEC.warnings(decoded, seen) == [
        {"pointer": f"/instances/{place}", "code": "out_of_training_range"}
        for place in ("1/age", "2/age", "2/rate")
    ]


def test_nothing_is_warned_of_where_every_value_was_seen() -> None:
    schema = ModelSchema((Column("x", "number"),))
    codec = RowCodec(schema)
    seen = SeenRanges.of(schema, {"x": (0, 1)})
    assert codec.warnings(decode({"instances": [{"x": 0}, {"x": 1}]}, codec), seen) == []


@pytest.mark.parametrize("name", ["status", "foreign", "nobody"])
def test_only_number_columns_have_a_range(name: str) -> None:
    with pytest.raises(ValueError, match="range"):
        SeenRanges.of(SCHEMA, {name: (0, 1)})


def test_a_million_bytes_of_empty_instances_are_refused_unread() -> None:
    body = b'{"instances": [' + b"{}," * 300_000 + b"{}]}"
    assert refusals(body) == [("/instances", "too_many_instances")]


@pytest.mark.parametrize(
    "body",
    [
        with_cell("age", "30"),
        with_cell("city", '"Rom"'),
        with_cell("zone", "9"),
        b'{"subjects": [null], "instances": [{"age":18,"amount":1,"foreign":true,"status":"1"}]}',
    ],
)
def test_the_fast_reading_takes_what_is_right(body: bytes) -> None:
    assert CODEC._decode_quickly(body, body.count(b":")) is not None
