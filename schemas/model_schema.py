"""A model's own input schema: JSON Schema 2020-12 over scalar columns."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast

import orjson

from schemas.problem import json_pointer
from schemas.strict_json import NotStrictJsonError, loads

Level = str | int | float | bool
"""One category of a category column, as it appears in JSON."""

Kind = Literal["number", "integer", "boolean", "category"]
LevelType = Literal["string", "integer", "number", "boolean"]
Unknown = Literal["refuse", "missing", "ignore"]
"""What happens to a level the schema does not list: refuse the row, hand it on as missing, or hand
it on as none of the known levels."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_INTEGER = 2**53
"""Integers beyond this are not exact as float64."""
MAX_NUMBER = 3.4028234663852886e38
"""The largest float32."""

_UNKNOWN: dict[str, Unknown] = {"refuse": "refuse", "missing": "missing", "ignore": "ignore"}
_KINDS: dict[LevelType, Kind] = {"number": "number", "integer": "integer", "boolean": "boolean"}
_TYPES: dict[str, LevelType] = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}
_LEVEL_TYPES: dict[type, LevelType] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
}
_SCHEMA_KEYWORDS = frozenset(
    {"$schema", "title", "description", "type", "properties", "required", "additionalProperties"}
)
_COLUMN_KEYWORDS = frozenset(
    {"type", "enum", "minimum", "maximum", "x-unknown", "x-source", "title", "description"}
)


class SchemaError(Exception):
    """The schema is outside the supported subset, or contradicts itself, at pointer."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"{pointer or 'the schema'}: {reason}")
        self.pointer = pointer
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Column:
    """One raw input column. Raises SchemaError when its parts contradict each other.

    levels: the categories in code order, all of one JSON type; None unless kind is category.
    minimum, maximum: inclusive, only where a person put them, only for numbers.
    """

    name: str
    kind: Kind
    levels: tuple[Level, ...] | None = None
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    unknown: Unknown = "refuse"
    title: str = ""
    description: str = ""
    source: str = ""
    must_be_given: bool = False
    """A nullable column that may be null but not left out."""

    def __post_init__(self) -> None:
        if not _is_unicode(self.name):
            raise SchemaError("/properties", "a column's name must be text without lone surrogates")
        if (self.levels is None) == (self.kind == "category"):
            raise self._error("enum", "category columns list their levels, others have none")
        if self.levels is None and self.unknown != "refuse":
            raise self._error("x-unknown", "only a column with an enum can meet an unknown level")
        for keyword, note in (
            ("title", self.title),
            ("description", self.description),
            ("x-source", self.source),
        ):
            if not _is_unicode(note):
                raise self._error(keyword, "must be text without lone surrogates")
        if self.levels is not None:
            object.__setattr__(self, "levels", self._checked_levels(self.levels))
        self._check_bounds()

    @property
    def level_type(self) -> LevelType | None:
        """The JSON type of the levels; None unless kind is category."""
        return None if self.levels is None else _LEVEL_TYPES[type(self.levels[0])]

    @property
    def is_required(self) -> bool:
        """An instance without this column is refused."""
        return self.must_be_given or not self.nullable

    def to_json(self) -> dict[str, object]:
        """The column's JSON Schema."""
        scalar = self.level_type or self.kind
        members: dict[str, object] = {"type": [scalar, "null"] if self.nullable else scalar}
        if self.levels is not None:
            members["enum"] = [*self.levels, None] if self.nullable else list(self.levels)
            members["x-unknown"] = self.unknown
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        members |= {key: _shortest(bound) for key, bound in bounds.items() if bound is not None}
        notes = {"title": self.title, "description": self.description, "x-source": self.source}
        return members | {key: note for key, note in notes.items() if note}

    def _error(self, keyword: str, reason: str) -> SchemaError:
        return SchemaError(json_pointer("properties", self.name, keyword), reason)

    def _checked_levels(self, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        types = {type(level) for level in levels}
        if not types:
            raise self._error("enum", "lists no level")
        if types == {int, float}:
            levels, types = tuple(float(level) for level in levels), {float}
        if len(types) > 1 or not types <= _LEVEL_TYPES.keys():
            raise self._error("enum", "levels must be scalars of one type")
        if len(set(levels)) != len(levels):
            raise self._error("enum", "lists a level twice")
        if not all(map(_is_exact, levels)):
            raise self._error("enum", "a level is no exact number or holds a lone surrogate")
        return levels

    def _check_bounds(self) -> None:
        limit = MAX_INTEGER if self.kind == "integer" else MAX_NUMBER
        for keyword, bound in (("minimum", self.minimum), ("maximum", self.maximum)):
            if bound is None:
                continue
            if self.kind not in {"number", "integer"}:
                raise self._error(keyword, "only numbers are bounded")
            if not abs(bound) <= limit:
                raise self._error(keyword, "is beyond what an instance may hold")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise self._error("minimum", "is above the maximum")


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """The raw input columns of a model, in order; unknown columns are always refused."""

    columns: tuple[Column, ...]
    title: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not self.columns:
            raise SchemaError("/properties", "lists no column")
        if len(set(self.names)) != len(self.columns):
            raise SchemaError("/properties", "lists a column twice")
        for keyword, note in (("title", self.title), ("description", self.description)):
            if not _is_unicode(note):
                raise SchemaError(json_pointer(keyword), "must be text without lone surrogates")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    @classmethod
    def from_json(cls, document: bytes | Mapping[str, object]) -> Self:
        """Read a schema; the order of `properties` is the order of the columns.

        Raises SchemaError, naming the JSON pointer, for everything outside the subset.
        """
        root = _members(_parsed(document) if isinstance(document, bytes) else document, "")
        _refuse_others(root, _SCHEMA_KEYWORDS, ())
        if root.get("$schema", DIALECT) != DIALECT:
            raise SchemaError("/$schema", f"must be {DIALECT}")
        if root.get("type") != "object":
            raise SchemaError("/type", "must be object")
        if root.get("additionalProperties", False) is not False:
            raise SchemaError("/additionalProperties", "must be false: unknown columns are refused")
        properties = _members(root.get("properties"), "/properties")
        required = _required(root.get("required", []), properties)
        return cls(
            tuple(
                _ColumnNode.of(name, node).column(is_listed=name in required)
                for name, node in properties.items()
            ),
            title=_note(root, "title"),
            description=_note(root, "description"),
        )

    def to_json(self) -> dict[str, object]:
        """The JSON Schema; `from_json` of it is equal to this."""
        notes = {"title": self.title, "description": self.description}
        return {
            "$schema": DIALECT,
            **{key: note for key, note in notes.items() if note},
            "type": "object",
            "properties": {column.name: column.to_json() for column in self.columns},
            "required": [column.name for column in self.columns if column.is_required],
            "additionalProperties": False,
        }

    def canonical_bytes(self) -> bytes:
        """The one spelling of this schema that digests are taken over."""
        return orjson.dumps(self.to_json())

    def digest(self) -> str:
        """`sha256:` and the hex digest of the canonical bytes."""
        return _sha256(self.canonical_bytes())

    def feature_names_digest(self) -> str:
        """`sha256:` and the hex digest of the JSON array of the names in order."""
        return _sha256(orjson.dumps(self.names))


def _sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _parsed(document: bytes) -> object:
    try:
        return loads(document)
    except NotStrictJsonError as error:
        raise SchemaError("", error.reason) from error


def _members(node: object, pointer: str) -> Mapping[str, object]:
    if not isinstance(node, Mapping):
        raise SchemaError(pointer, "must be an object")
    return node


def _refuse_others(
    members: Mapping[str, object], keywords: frozenset[str], at: tuple[str, ...]
) -> None:
    for keyword in members:
        if keyword not in keywords:
            raise SchemaError(json_pointer(*at, keyword), "is outside the supported subset")


def _required(node: object, properties: Mapping[str, object]) -> frozenset[str]:
    if not isinstance(node, list):
        raise SchemaError("/required", "must be an array of column names")
    for index, name in enumerate(node):
        if not isinstance(name, str) or name not in properties:
            raise SchemaError(json_pointer("required", index), "is not a column")
    if len(set(node)) != len(node):
        raise SchemaError("/required", "names a column twice")
    return frozenset(node)


@dataclass(frozen=True, slots=True)
class _ColumnNode:
    """One member of `properties`, read keyword by keyword."""

    name: str
    members: Mapping[str, object]

    @classmethod
    def of(cls, name: str, node: object) -> Self:
        members = _members(node, json_pointer("properties", name))
        _refuse_others(members, _COLUMN_KEYWORDS, ("properties", name))
        return cls(name, members)

    def column(self, *, is_listed: bool) -> Column:
        scalar, nullable = self._type()
        if not nullable and not is_listed:
            raise SchemaError("/required", f"must name {self.name!r}, or its type allow null")
        levels = self._levels(scalar, nullable=nullable) if "enum" in self.members else None
        if scalar == "string" and levels is None:
            raise self._error("enum", "a text column needs its categories")
        return Column(
            name=self.name,
            kind="category" if levels is not None else _KINDS[scalar],
            levels=levels,
            nullable=nullable,
            minimum=self._bound("minimum"),
            maximum=self._bound("maximum"),
            unknown=self._unknown(),
            title=_note(self.members, "title"),
            description=_note(self.members, "description"),
            source=_note(self.members, "x-source"),
            must_be_given=nullable and is_listed,
        )

    def _error(self, keyword: str, reason: str) -> SchemaError:
        return SchemaError(json_pointer("properties", self.name, keyword), reason)

    def _type(self) -> tuple[LevelType, bool]:
        node = self.members.get("type")
        names = node if isinstance(node, list) else [node]
        scalars = [_TYPES[name] for name in names if isinstance(name, str) and name in _TYPES]
        nullable = len(names) == 2 and "null" in names
        if len(scalars) != 1 or len(names) != 1 + nullable:
            raise self._error("type", f"must be one of {', '.join(_TYPES)}, alone or with null")
        return scalars[0], nullable

    def _levels(self, scalar: LevelType, *, nullable: bool) -> tuple[Level, ...]:
        node = self.members["enum"]
        if not isinstance(node, list):
            raise self._error("enum", "must be an array")
        nulls = sum(level is None for level in node)
        if nulls != int(nullable):
            raise self._error("enum", "null stands once in both type and enum, or in neither")
        levels = [_level(level, scalar) for level in node if level is not None]
        if None in levels:
            raise self._error("enum", f"every level must be of type {scalar}")
        return tuple(level for level in levels if level is not None)

    def _bound(self, keyword: str) -> float | None:
        node = self.members.get(keyword)
        if keyword in self.members and type(node) not in {int, float}:
            raise self._error(keyword, "must be a number")
        return cast("float | None", node)

    def _unknown(self) -> Unknown:
        node = self.members.get("x-unknown", "refuse")
        if not isinstance(node, str) or node not in _UNKNOWN:
            raise self._error("x-unknown", f"must be one of {', '.join(_UNKNOWN)}")
        return _UNKNOWN[node]


def _note(members: Mapping[str, object], keyword: str) -> str:
    # Column and ModelSchema refuse what is not text; they know where they stand.
    return cast("str", members.get(keyword, ""))


def _level(node: object, scalar: LevelType) -> Level | None:
    if scalar == "integer" and isinstance(node, float) and node.is_integer():
        return int(node)
    if scalar == "number" and type(node) is int:
        return float(node)
    return node if isinstance(node, Level) and _LEVEL_TYPES.get(type(node)) == scalar else None


def _is_unicode(text: object) -> bool:
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False


def _is_exact(level: Level) -> bool:
    return _is_unicode(level) if isinstance(level, str) else abs(level) <= MAX_INTEGER


def _shortest(bound: float) -> float:
    return int(bound) if float(bound).is_integer() else bound
