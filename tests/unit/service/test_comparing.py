"""Two documents compared: bytes first, then where they differ and by how much."""

from typing import Any

import orjson
import pytest

from service.comparing import MOST_OTHERS, compare


def compared(one: Any, other: Any) -> Any:
    return compare(orjson.dumps(one), orjson.dumps(other))


@pytest.mark.parametrize("document", [None, 1, [0.1, -0.0], {"a": [{"b": "c"}], "d": True}])
def test_the_same_bytes_are_equal(document: Any) -> None:
    assert compared(document, document) == (True, None, ())


def test_the_largest_gap_is_named_with_its_place() -> None:
    one = {"values": [[1.0, 2.0], [3.0, 4.0]], "a/b": 0.5}
    other = {"values": [[1.0, 2.5], [3.0, 4.25]], "a/b": 0.5}
    found = compared(one, other)
    assert not found.equal
    assert found.largest_gap == ("/values/0/1", 0.5, 0.2)
    assert found.others == ()
    assert compared({"a/b": 1.0}, {"a/b": 1.5}).largest_gap.pointer == "/a~1b"


def test_the_last_bit_is_a_gap_and_so_is_a_sign() -> None:
    assert compared([0.1], [0.1 + 2e-17]).largest_gap.absolute > 0
    assert not compared([0.0], [-0.0]).equal
    assert compared([0.0], [-0.0]).largest_gap == ("/0", 0.0, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [
        ({"label": "bad"}, {"label": "good"}, "/label"),
        ({"seed": [12]}, {"seed": [13]}, "/seed/0"),
        ({"values": [1.0]}, {"values": None}, "/values"),
        ({"values": [1.0]}, {"values": [1.0, 2.0]}, "/values"),
        ({"decision": "no"}, {}, "/decision"),
        ({"label": 1}, {"label": True}, "/label"),
        ({"label": 1}, {"label": 1.0}, "/label"),
    ],
)
def test_what_is_no_gap_between_numbers_is_named(one: Any, other: Any, place: str) -> None:
    for found in (compared(one, other), compared(other, one)):
        assert not found.equal
        assert found.largest_gap is None
        assert found.others == (place,)


def test_places_are_told_up_to_a_number() -> None:
    found = compared(["a"] * 50, ["b"] * 50)
    assert found.others == tuple(f"/{i}" for i in range(MOST_OTHERS))


def test_numbers_of_two_columns_or_outputs_have_no_gap() -> None:
    one = [{"feature": "age", "value": 70.0, "attribution": 0.5, "output": "yes"}]
    for name, other in (("feature", "income"), ("output", "no")):
        found = compared(one, [{**one[0], name: other, "value": 9000.0, "attribution": 0.4}])
        assert (found.largest_gap, found.others) == (None, (f"/0/{name}",))
    assert compared(one, [{**one[0], "attribution": 0.25}]).largest_gap.absolute == 0.25


def test_classes_may_be_called_like_that() -> None:
    found = compared({"output": 0.25, "a": 0.75}, {"output": 0.5, "a": 0.5})
    assert (found.largest_gap, found.others) == (("/a", 0.25, 1 / 3), ())


@pytest.mark.parametrize("other", [b'{"a":[1E-7,2]}', b'{"a":[1e-7, 2]}', b'{"a":1,"a":[1e-7,2]}'])
def test_the_same_numbers_in_other_bytes_are_not_equal(other: bytes) -> None:
    assert compare(b'{"a":[1e-7,2]}', other) == (False, None, ("",))
