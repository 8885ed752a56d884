from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evidence.sections import UncuttableError, cut, joined, owners_of, sections_about

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
CELLS = NUMBERS | st.text(max_size=20) | st.none() | st.booleans()


def rows_of(n: int, element: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(element, min_size=n, max_size=n)


@st.composite
def records(draw: st.DrawFn) -> tuple[bytes, dict[str, tuple[int, int]], list[str | None]]:
    n = draw(st.integers(2, 6))
    matrix = rows_of(n, st.lists(NUMBERS, max_size=3))
    explanation = {
        "status": draw(st.sampled_from(["complete", "failed"])),
        "feature_names": draw(st.lists(st.text(max_size=5), max_size=3)),
        "values": draw(st.none() | rows_of(n, st.lists(st.lists(NUMBERS)))),
        "base_values": draw(matrix),
        "top": draw(rows_of(n, st.lists(st.dictionaries(st.text(max_size=4), CELLS)))),
        "seed": draw(st.none() | rows_of(n, st.integers(0, 2**53))),
        "reasons": draw(st.none() | rows_of(n, st.none() | st.dictionaries(st.text(), CELLS))),
        "path": {"attributions": draw(matrix), "baseline": [0.5], "steps": 50},
        "caveat": "none",
    }
    warnings = [
        {"pointer": f"/instances/{draw(st.integers(0, n))}/age", "code": "out"}
        for _ in range(draw(st.integers(0, 4)))
    ]
    document = {
        "answer": {"schema_version": "1", "warnings": warnings, "explanation": explanation},
        "instances": draw(rows_of(n, st.dictionaries(st.text(max_size=8), CELLS, max_size=4))),
        "fed": draw(matrix),
        "fingerprint": draw(st.text(max_size=9)),
        "policy": {
            "rule": "r",
            "reasons": draw(st.none() | st.dictionaries(st.text(max_size=5), CELLS)),
            "decisions": draw(rows_of(n, st.none() | st.text())),
        },
        draw(st.text(max_size=4)) + "unknown": draw(CELLS),
    }
    subjects = draw(rows_of(n, st.sampled_from(["anna", "bert", None])))
    payload = orjson.dumps(document)
    return payload, parts_of(payload, document), subjects


def parts_of(payload: bytes, document: dict[str, Any]) -> dict[str, tuple[int, int]]:
    parts, end = {}, 0
    for name, member in document.items():
        text = orjson.dumps(member)
        start = payload.index(orjson.dumps(name) + b":" + text, end) + len(orjson.dumps(name)) + 1
        parts[name] = (start, end := start + len(text))
    return parts


@given(records())
def test_whatever_is_cut_is_joined_to_the_same_bytes(
    record: tuple[bytes, dict[str, tuple[int, int]], list[str | None]],
) -> None:
    payload, parts, subjects = record
    owners = owners_of(orjson.dumps(subjects).decode())
    if owners is not None:
        assert joined(cut(payload, parts, owners)) == (payload, parts)


@given(records())
def test_without_one_subject_its_rows_are_null_and_every_other_byte_is_the_same(
    record: tuple[bytes, dict[str, tuple[int, int]], list[str | None]],
) -> None:
    payload, parts, names = record
    subjects = orjson.dumps(names).decode()
    owners = owners_of(subjects)
    if owners is None or "anna" not in names:
        return
    texts: list[bytes | None] = [*cut(payload, parts, owners)]
    for section in sections_about(subjects, "anna", len(texts)):
        texts[section] = None
    left, ranges = joined(texts)
    before, after = orjson.loads(payload), orjson.loads(left)
    for row, name in enumerate(names):
        for array in ("instances", "fed"):
            assert after[array][row] == (None if name == "anna" else before[array][row])
    assert after["fingerprint"] is None
    assert after["answer"]["explanation"]["caveat"] == "none"
    for name, (start, end) in ranges.items():
        assert orjson.loads(left[start:end]) == after[name]


SECRETS = {
    "instances": [{"age": 4711}, {"age": 33}],
    "fed": [[4711.0], [33.0]],
    "outputs": [[0.4711], [0.1]],
    "scores": [[0.24711], [0.1]],
    "answer": {
        "request_id": "r",
        "predictions": [{"label": "bad4711", "decision": "no4711"}, {"label": "good"}],
        "warnings": [{"pointer": "/instances/0/age4711", "code": "out_of_training_range"}],
        "explanation": {
            "values": [[[1.4711]], [[2.0]]],
            "base_values": [[3.4711], [3.0]],
            "outputs": [[4.4711], [4.0]],
            "standard_errors": [[[5.4711]], [[5.0]]],
            "additivity_error": [6.4711, 6.0],
            "top": [[{"feature": "x", "value": 4711}], []],
            "seed": [84711, 8],
            "reasons": [{"decision": "no4711", "items": [{"features": ["age4711"]}]}, {}],
            "interactions": {"values": [[9.4711], [9]], "standard_errors": [[1.4711], [9]]},
            "local_model": {"coefficients": [[9.4711], [9]], "r2": [4711, 1], "ridge": 1},
            "path": {"attributions": [[9.4711], [9]], "completeness_gap": [4711, 1]},
            "made_of_all": 14711,
        },
    },
    "provenance": {"seed": [94711, 9], "principal": "local"},
    "policy": {
        "version": "v1",
        "u": 0.5,
        "canary": {},
        "decisions": ["no4711", "yes"],
        "rule": "minors4711",
        "allowed": [4711],
        "probability": 0.4711,
        "wants": "4711",
        "reasons": {"adverse": "no4711"},
    },
    "explanation": {"status": "skipped", "reason": "forbidden by rule minors4711"},
    "checks": {"gap": 4711},
    "fingerprint": "4711",
    "of_tomorrow": [4711, 33],
}


def test_nothing_of_an_erased_row_stays_anywhere() -> None:
    payload = orjson.dumps(SECRETS)
    texts: list[bytes | None] = [*cut(payload, {}, (1, 2))]
    assert len(texts) == 4
    assert b"4711" not in (texts[0] or b"") + (texts[2] or b"")
    for section in sections_about('["anna","bert"]', "anna", 4):
        texts[section] = None
    left, _ = joined(texts)
    assert b"4711" not in left
    found = orjson.loads(left)
    assert found["answer"]["explanation"]["values"] == [None, [[2.0]]]
    assert found["answer"]["explanation"]["reasons"] == [None, {}]
    assert (found["policy"]["version"], found["policy"]["u"]) == ("v1", 0.5)


def test_whether_a_rule_held_is_not_in_the_common_text() -> None:
    first, second = (
        cut(orjson.dumps({"policy": {"rule": rule, "allowed": rule is None}}), {}, (1, 2))[0]
        for rule in (None, "minors")
    )
    assert first == second


def test_how_many_warnings_a_row_had_is_not_in_the_common_text() -> None:
    texts = [
        cut(
            orjson.dumps({"answer": {"warnings": [{"pointer": "/instances/0/age"}] * n}}),
            {},
            (1, 2),
        )
        for n in range(4)
    ]
    assert len({text[0] for text in texts}) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b'{"instances": [1,2]}',
        b'{"instances":[1.0,1e2]}',
        b'{"instances":[1,2],"instances":[1,2]}',
        b'{"instances":[1,2]',
        b'{"instances":["\\u0041",2]}',
        b'{"instances":[123456789012345678901234567890,2]}',
    ],
)
def test_what_is_not_byte_for_byte_ours_is_not_cut(payload: bytes) -> None:
    with pytest.raises(UncuttableError):
        cut(payload, {}, (1, 2))


def test_a_part_that_begins_inside_a_row_is_not_cut() -> None:
    with pytest.raises(UncuttableError):
        cut(b'{"instances":[{"a":1},2]}', {"inside": (19, 20)}, (1, 2))


def test_rows_of_another_number_belong_to_nobody_alone() -> None:
    texts = cut(b'{"instances":[1,2,3],"answer":5}', {}, (1, 2))
    assert texts[1:] == [b"", b"", b"[1,2,3]\n5".ljust(256, b"\n")]


def test_the_size_of_a_section_does_not_tell_how_long_its_values_are() -> None:
    sizes = {
        tuple(map(len, cut(orjson.dumps({"instances": [{"sex": value}, 1]}), {}, (1, 2))))
        for value in ("male", "female", "unknown to the office")
    }
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("subjects", "owners"),
    [
        (None, None),
        ('["a"]', None),
        ('["a","a"]', None),
        ("[null,null]", None),
        ('["a",null,"a"]', (1, 2, 1)),
        ('["b","a","c"]', (1, 2, 3)),
    ],
)
def test_only_rows_about_different_subjects_are_apart(
    subjects: str | None, owners: tuple[int, ...] | None
) -> None:
    assert owners_of(subjects) == owners


def test_the_sections_to_erase_of_a_subject() -> None:
    assert sections_about('["a","b",null]', "b", 5) == {2, 4}
    assert sections_about('["a","b",null]', "b", 4) == {2}
    assert sections_about('["a","b",null]', "x", 5) == set()
    assert sections_about('["a","b"]', "b", 1) == {0}
    assert sections_about('["a","a"]', "a", 1) == {0}
