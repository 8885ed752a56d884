"""JSON as strict as the API promises: one reading of every document, or a refusal."""

import json
import re
from typing import NoReturn

MAX_DEPTH = 32
"""Containers within containers; the outermost counts as one."""

_MAX_INTEGER_DIGITS = 400  # beyond the float range; Python's own limit raises at 4300
_TOO_DEEP = f"nested deeper than {MAX_DEPTH}"
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class NotStrictJsonError(Exception):
    """The bytes are not strict JSON; reason says why and never quotes them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def loads(body: bytes) -> object:
    """Parse UTF-8 JSON into dict, list, str, int, float, bool and None.

    Raises NotStrictJsonError for syntax, NaN and Infinity, lone surrogates, keys given twice,
    nesting beyond MAX_DEPTH, a byte order mark and bytes that are not UTF-8. Numbers beyond the
    float range come back as infinities (integers from 400 digits on): refusing them is a matter
    of content.
    """
    value = _parse(_text(body))
    _check_depth(value)
    if _SURROGATE_ESCAPE.search(body) and not _is_unicode(value):
        raise NotStrictJsonError("a lone surrogate is not text")
    return value


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if text is None:
        raise NotStrictJsonError("not UTF-8")
    if text.startswith("\ufeff"):
        raise NotStrictJsonError("starts with a byte order mark")
    return text


def _parse(text: str) -> object:
    # Raised after the except blocks: a chained JSONDecodeError would carry the whole document.
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = f"syntax error at line {error.lineno}, column {error.colno}"
    except RecursionError:
        reason = _TOO_DEEP
    else:
        return value
    raise NotStrictJsonError(reason)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrictJsonError("an object has the same key twice")
    return members


def _refuse_constant(_name: str) -> NoReturn:
    raise NotStrictJsonError("NaN and Infinity are not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _MAX_INTEGER_DIGITS else float(digits)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer
)


def _check_depth(value: object) -> None:
    layer = _containers([value])
    for _ in range(MAX_DEPTH):
        if not layer:
            return
        layer = [inner for outer in layer for inner in _containers(outer)]
    if layer:
        raise NotStrictJsonError(_TOO_DEEP)


def _containers(
    container: dict[str, object] | list[object],
) -> list[dict[str, object] | list[object]]:
    children = container.values() if isinstance(container, dict) else container
    return [child for child in children if isinstance(child, dict | list)]


def _is_unicode(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
