import json
import math

import orjson
from hypothesis import given
from hypothesis import strategies as st

from schemas.model_schema import MAX_NUMBER, Column, Kind, Level, ModelSchema, Unknown
from schemas.problem import InvalidContentError
from schemas.rows import DecodedBody, RowCodec
from schemas.strict_json import NotStrictJsonError, loads

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INTEGERS = st.integers(-(2**53), 2**53)
NUMBERS = st.floats(-MAX_NUMBER, MAX_NUMBER, allow_nan=False)
LEVELS: st.SearchStrategy[list[Level]] = st.one_of(
    st.lists(TEXT, min_size=1, max_size=4, unique=True),
    st.lists(st.integers(-3, 3), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([-1.5, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=4, unique=True),
    st.lists(st.booleans(), min_size=1, unique=True),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NUMBER_LITERALS = ["-0", "-0.0", "1.0", "1e0", "0.5", "9007199254740993", "-9007199254740992"]
ODD_LITERALS = ["1e16", "1e39", "1e400", "9" * 4400, "NaN", "true", "null", "01", "1."]
TEXT_LITERALS = ['"a"', '"\\u0061"', '"\\ud800"']
LITERALS = st.sampled_from([*NUMBER_LITERALS, *ODD_LITERALS, *TEXT_LITERALS])


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    nullable = draw(st.booleans())
    kind: Kind = draw(st.sampled_from(["number", "integer", "boolean", "category"]))
    bounds = sorted(draw(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2)))
    is_bounded = kind in {"number", "integer"}
    low, high = (bound if is_bounded and draw(st.booleans()) else None for bound in bounds)
    levels: list[Level] | None = draw(LEVELS) if kind == "category" else None
    unknown: Unknown = draw(st.sampled_from(["refuse", "missing", "ignore"]))
    return Column(
        name,
        kind,
        tuple(levels) if levels else None,
        nullable=nullable,
        minimum=low,
        maximum=high,
        unknown=unknown if levels else "refuse",
        title=draw(TEXT),
        description=draw(TEXT),
        must_be_given=nullable and draw(st.booleans()),
    )


@st.composite
def schemas(draw: st.DrawFn) -> ModelSchema:
    names = draw(st.lists(TEXT, min_size=1, max_size=5, unique=True))
    return ModelSchema(tuple(draw(columns(name)) for name in names))


def plausible(column: Column) -> st.SearchStrategy[object]:
    by_kind = {
        "number": NUMBERS | INTEGERS | st.integers(-9, 9),
        "integer": INTEGERS | st.integers(-9, 9) | st.integers(-9, 9).map(float),
        "boolean": st.booleans(),
        "category": st.sampled_from(column.levels or (None,)) | TEXT | st.integers(-4, 4),
    }
    return by_kind[column.kind] | st.none() if column.nullable else by_kind[column.kind]


@st.composite
def instances(draw: st.DrawFn, schema: ModelSchema) -> dict[str, object]:
    cells = {
        column.name: draw(plausible(column))
        for column in draw(st.permutations(schema.columns))
        if column.is_required or draw(st.booleans())
    }
    return cells | (draw(st.dictionaries(TEXT, JSON, max_size=1)) if draw(st.booleans()) else {})


@st.composite
def bodies(draw: st.DrawFn, schema: ModelSchema) -> bytes:
    """Mostly right; some with odd literals, damaged bytes or a member written twice."""
    rows = draw(st.lists(instances(schema), min_size=1, max_size=3))
    body: dict[str, object] = {"instances": rows}
    if draw(st.booleans()):
        body["subjects"] = draw(st.lists(TEXT | st.none(), min_size=1, max_size=3))
    text = json.dumps(body, ensure_ascii=draw(st.booleans()))
    damage = draw(st.sampled_from(["none", "none", "literal", "twice", "bytes"]))
    if damage == "literal":
        name = json.dumps(draw(st.sampled_from(schema.names)))
        rest = json.dumps({k: v for k, v in rows[0].items() if json.dumps(k) != name})[1:-1]
        literal = draw(LITERALS)
        text = f'{{"instances": [{{{name}: {literal}{", " if rest else ""}{rest}}}]}}'
    if damage == "twice":
        start = draw(st.integers(0, len(text)))
        text = text[:start] + text[start:].replace('"', '"x": 1, "', 1)
    raw = text.encode()
    if damage == "bytes":
        start = draw(st.integers(0, len(raw)))
        raw = raw[:start] + draw(st.binary(max_size=3)) + raw[start + draw(st.integers(0, 2)) :]
    return raw


def outcome(codec: RowCodec, body: bytes) -> DecodedBody | str:
    try:
        return codec.decode(body, max_instances=2)
    except (NotStrictJsonError, InvalidContentError) as error:
        return type(error).__name__


def exactly(rows: object) -> str:
    """Tells 1 from 1.0 and True, and 0.0 from -0.0."""
    return repr(rows)


@given(schemas())
def test_a_schema_survives_writing_and_reading(schema: ModelSchema) -> None:
    again = ModelSchema.from_json(schema.canonical_bytes())
    assert again == schema
    assert again.digest() == schema.digest()
    assert ModelSchema.from_json(schema.to_json()) == schema


@given(st.data())
def test_what_the_fast_reading_accepts_the_definitive_one_reads_alike(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    codec = RowCodec(schema)
    body = data.draw(bodies(schema))
    quick = codec._decode_quickly(body, body.count(b":"))
    if quick is None:
        return
    content = codec._definitive.read(body, max_instances=3)
    assert exactly(quick.rows) == exactly(content.rows)
    assert exactly(quick.codes) == exactly(codec._coded(content.rows))
    assert quick.subjects == content.subjects


@given(st.data())
def test_the_order_of_keys_changes_nothing(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    row = data.draw(instances(schema))
    keys = data.draw(st.permutations(list(row)))
    codec = RowCodec(schema)
    given_rows = ({"instances": [row]}, {"instances": [{key: row[key] for key in keys}]})
    first, second = (outcome(codec, json.dumps(body).encode()) for body in given_rows)
    assert exactly(first) == exactly(second)


@given(st.data())
def test_stored_rows_are_read_as_themselves(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    codec = RowCodec(schema)
    decoded = outcome(codec, data.draw(bodies(schema)))
    if isinstance(decoded, str):
        return
    stored = codec.instances_json(decoded.rows)
    again = codec.decode(b'{"instances": ' + stored + b"}", max_instances=2)
    assert exactly(again.rows) == exactly(decoded.rows)
    assert codec.instances_json(again.rows) == stored


@given(st.data())
def test_codes_tell_levels_missing_and_unlisted_apart(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    decoded = outcome(RowCodec(schema), data.draw(bodies(schema)))
    if isinstance(decoded, str):
        return
    for row, codes in zip(decoded.rows, decoded.codes, strict=True):
        for column, value, code in zip(schema.columns, row, codes, strict=True):
            assert exactly(float(code)) == exactly(expected_code(column, value))


def expected_code(column: Column, value: Level | None) -> float:
    if value is None:
        return math.nan
    if column.levels is None:
        return float(value)
    if value in column.levels:
        return float(column.levels.index(value))
    return {"missing": math.nan, "ignore": -1.0}[column.unknown]


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise_anything_but_the_two_refusals(body: bytes) -> None:
    codec = RowCodec(ModelSchema((Column("", "number", nullable=True),)))
    outcome(codec, body)
    outcome(codec, b'{"instances": ' + body + b"}")
    outcome(codec, b'{"instances": [{"": ' + body + b"}]}")
    outcome(codec, b'{"instances": [{}], "subjects": ' + body + b"}")


@given(st.dictionaries(TEXT, st.integers(-(2**63), 2**63 - 1) | TEXT | st.none(), max_size=5))
def test_strict_json_reads_what_was_written(document: dict[str, object]) -> None:
    assert loads(orjson.dumps(document)) == document
