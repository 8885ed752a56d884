"""KServe's protocol V1: instances in, predictions and explanations out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson

from schemas import NotStrictJsonError, Violation, json_pointer
from schemas.strict_json import loads
from service.errors import NotJsonError
from service.facades.rows import Places, body_of, moved_warnings, refusal

OF_EACH_INSTANCE = frozenset(
    {
        *("values", "base_values", "outputs", "standard_errors", "additivity_error", "top"),
        *("seed", "visible", "reasons"),
    }
)
"""What an explanation lists by instance."""


@dataclass(frozen=True, slots=True)
class V1Request:
    """The body of :predict and :explain as that of POST /predict. Rows that are objects are that
    already; the cells of one that is a list stand in the order of the columns.
    """

    body: bytes
    places: Places

    @classmethod
    def of(cls, body: bytes, columns: Sequence[str], *, max_instances: int) -> Self:
        """Raises NotJsonError, and InvalidRequestError for a list that is no row."""
        places = _places((), columns)
        if b"[" not in body[body.find(b"[") + 1 :]:  # no list in the list of instances
            return cls(body, places)
        try:
            document = loads(body)
        except NotStrictJsonError as error:
            raise NotJsonError(str(error)) from None
        if not isinstance(document, dict):
            return cls(body, places)
        rows = document.get("instances")
        if not isinstance(rows, list) or len(rows) > max_instances:
            return cls(body, places)
        lists = {index: row for index, row in enumerate(rows) if isinstance(row, list)}
        if not lists:
            return cls(body, places)
        return cls(_named(document, rows, lists, columns), _places(lists, columns))


def _named(
    document: Mapping[str, object],
    rows: Sequence[object],
    lists: Mapping[int, Sequence[object]],
    columns: Sequence[str],
) -> bytes:
    for index, row in lists.items():
        if len(row) != len(columns):
            detail = f"must hold {len(columns)} values in the order of the columns"
            raise refusal(Violation(json_pointer("instances", index), detail, "wrong_length"))
    named = [
        dict(zip(columns, lists[index], strict=True)) if index in lists else row
        for index, row in enumerate(rows)
    ]
    return body_of({**document, "instances": named}, "/instances")


def _places(lists: Collection[int], columns: Sequence[str]) -> Places:
    """Pointers stay, but into rows that are lists, where the column's place is its name."""
    place_of = {name: place for place, name in enumerate(columns)}

    def cell(index: int, column: str) -> str:
        token = place_of.get(column, column) if index in lists else column
        return json_pointer("instances", index, token)

    return Places(cell, rows=None, subjects="/subjects")


def v1_answer(body: bytes, places: Places) -> bytes:
    """An answer of POST /predict in the protocol's words."""
    answer = orjson.loads(body)
    told = {name: answer[name] for name in ("predictions", "request_id", "model")}
    told["warnings"] = moved_warnings(answer["warnings"], places)
    explanation = answer["explanation"]
    if explanation is not None:
        told["explanations"] = _by_instance(explanation, len(answer["predictions"]))
        told["explanation"] = {
            name: value for name, value in explanation.items() if name not in OF_EACH_INSTANCE
        }
    return orjson.dumps(told)


def _by_instance(explanation: Mapping[str, Any], n_rows: int) -> list[dict[str, Any]] | None:
    """None where there is nothing yet, or nothing at all."""
    lists = {name: explanation[name] for name in explanation if name in OF_EACH_INSTANCE}
    if not any(lists.values()):
        return None
    return [
        {name: None if values is None else values[index] for name, values in lists.items()}
        for index in range(n_rows)
    ]
