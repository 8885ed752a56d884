"""Reads a narrative as somebody who trusts none of it: every numeral against the record."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
NUMERAL = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?: %)?")


def numerals(paragraphs: list[str]) -> list[str]:
    """Those outside of quotation marks, in order."""
    return [found for text in paragraphs for found in NUMERAL.findall(QUOTED.sub('""', text))]


def pointed(document: Any, pointer: str) -> Any:
    for key in pointer.split("/")[1:]:
        name = key.replace("~1", "/").replace("~0", "~")
        document = document[int(name)] if isinstance(document, list) else document[name]
    return document


def assert_every_number_is_the_records(told: Mapping[str, Any], record: Any) -> None:
    numbers = [tuple(pair) for pair in told["numbers"]]
    assert numerals(list(told["paragraphs"])) == [text for text, _ in numbers]
    for text, pointer in numbers:
        found = pointed(record, pointer)
        if isinstance(found, dict) or found is None:
            assert text == str(int(pointer.rpartition("/")[2]) + 1)
        else:
            assert_rounds_to(found, text)


def assert_rounds_to(value: float, text: str) -> None:
    """The rule of docs/narratives.md: the printed number is the nearest of its precision."""
    assert not isinstance(value, bool)
    exact, shown = Decimal(repr(value)), Decimal(text.removesuffix(" %"))
    if text.endswith(" %"):
        exact *= 100
        assert abs(shown - exact) <= Decimal("0.05")
        assert (shown in (0, 100)) == (exact in (0, 100))
    elif "e" in text:
        assert abs(exact) < Decimal("0.001") or abs(exact) >= Decimal("1e15")
        assert abs(shown - exact) <= Decimal("0.05") * Decimal(10) ** shown.adjusted()
    elif exact == exact.to_integral_value():
        assert shown == exact
    elif shown != exact:
        unit = Decimal(10) ** min(0, exact.adjusted() - 3)
        assert abs(shown - exact) <= unit / 2
        assert shown % unit == 0


def texts(told: Mapping[str, Any]) -> str:
    return "\n".join(told["paragraphs"])


def strings_in(record: object) -> set[str]:
    """Every string of a document, and keys: what a narrative may quote."""
    if isinstance(record, Mapping):
        return {*map(str, record)}.union(*(strings_in(value) for value in record.values()))
    if isinstance(record, list):
        return set().union(*map(strings_in, record))
    return {record if isinstance(record, str) else json.dumps(record)}


def quoted_in(paragraphs: list[str]) -> set[str]:
    return {json.loads(found) for text in paragraphs for found in QUOTED.findall(text)}
