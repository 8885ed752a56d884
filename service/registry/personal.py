"""Text columns that hold personal data, or more levels than categories have, are refused unless a
person allows them by name; then what they hold is stored, but not shown.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas import Column, ModelSchema
from service.errors import InvalidInputError
from service.privacy import SURE, PersonalLevels, blacked_out
from service.registry.manifest import AllowedColumn

if TYPE_CHECKING:
    import pandas as pd

MOST_LEVELS = 256
LEAST_SHARE = 0.01
"""Of the distinct values, of kinds known by their shape alone; of the others one is enough."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What a text column holds: distinct values, of the model's levels and the data's."""

    column: str
    values: int
    findings: Mapping[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """Why it is not taken unasked; never a value."""
        found = [
            f"{entity} in {count} of {self.values} distinct values"
            for entity, count in self.findings.items()
            if entity in SURE or count >= LEAST_SHARE * self.values
        ]
        if self.values > MOST_LEVELS:
            found.append(f"{self.values} distinct values, more than {MOST_LEVELS}")
        return found


def check_personal(
    schema: ModelSchema, frame: "pd.DataFrame", allowed: Collection[str]
) -> tuple[AllowedColumn, ...]:
    """The allowed columns with what they hold; InvalidInputError names those that are not allowed,
    what was found in them and what to do.
    """
    texts = {column.name: column for column in schema.columns if column.level_type == "string"}
    strangers = [name for name in allowed if name not in texts]
    if strangers:
        names = ", ".join(map(repr, strangers))
        raise InvalidInputError(f"--allow-column: the model has no text column {names}")
    searched = [_searched(column, frame[name]) for name, column in texts.items()]
    refused = [
        f"column {found.column!r}: {', '.join(found.reasons)}"
        for found in searched
        if found.reasons and found.column not in allowed
    ]
    if refused:
        raise InvalidInputError(
            "text columns that look like personal data are not registered unasked, because their "
            f"values would be stored with every version and record: {'; '.join(refused)}. Train "
            "the model without them, or allow each one with --allow-column COLUMN"
        )
    _check_showable([texts[found.column] for found in searched if found.findings])
    return tuple(
        AllowedColumn(column=found.column, values=found.values, findings=dict(found.findings))
        for found in searched
        if found.column in allowed
    )


def personal_levels(schema: ModelSchema, allowed: Sequence[AllowedColumn]) -> PersonalLevels:
    """By column, the levels that are personal data. Cost: nothing unless a column was allowed."""
    held = {entry.column for entry in allowed if entry.findings}
    return {
        column.name: frozenset(_personal(column.levels or ()))
        for column in schema.columns
        if column.name in held
    }


def shown_schema(document: Mapping[str, object], personal: PersonalLevels) -> dict[str, object]:
    """A JSON Schema of the instances as anybody may see it: personal levels are left out, and the
    others stand as examples, because they are not all.
    """
    properties = document["properties"]
    assert isinstance(properties, Mapping)
    shown = {
        name: _without(members, personal[name]) if personal.get(name) else members
        for name, members in properties.items()
    }
    return {**document, "properties": shown}


def _without(members: Mapping[str, object], personal: frozenset[str]) -> dict[str, object]:
    levels = members.get("enum", members.get("examples", ()))
    assert isinstance(levels, Iterable)
    others = {name: value for name, value in members.items() if name not in ("enum", "examples")}
    return {**others, "examples": [level for level in levels if level not in personal]}


def _searched(column: Column, series: "pd.Series") -> Searched:
    values = {value for value in series.dropna().unique().tolist() if isinstance(value, str)}
    values |= {level for level in column.levels or () if isinstance(level, str)}
    findings = Counter(entity for value in values for entity in set(blacked_out(value)[1]))
    return Searched(column.name, len(values), dict(sorted(findings.items())))


def _personal(levels: Iterable[object]) -> Iterable[str]:
    return (level for level in levels if isinstance(level, str) and blacked_out(level)[1])


def _check_showable(columns: Iterable[Column]) -> None:
    """There must be something to show as an example of each column."""
    for column in columns:
        levels = column.levels or ()
        is_closed = column.unknown == "refuse" and not column.nullable
        if is_closed and len(set(_personal(levels))) == len(levels):
            raise InvalidInputError(
                f"column {column.name!r} takes nothing but personal data: no sample request could "
                "be shown. Train the model without it"
            )
