"""What expressions are made of: values, terms with their kinds, and what may be named."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, Self

from schemas.definitive import Row
from schemas.model_schema import Column, Level, LevelType, ModelSchema
from schemas.rows import SeenRanges

Value = Level | None
Scores = Sequence[float]
"""What the model served for one instance: K probabilities, or one value."""

Run = Callable[[Row, Scores], Value]
Kind = Literal["number", "text", "boolean"]
Compare = Callable[[Level, Level], bool]

KINDS: dict[LevelType, Kind] = {
    "string": "text",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
}
KIND_OF: dict[type, Kind] = {str: "text", int: "number", float: "number", bool: "boolean"}
COMPARE: dict[str, Compare] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,  # only numbers come here
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class PolicyError(Exception):
    """A rule or a decision that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A decision by one score: `name` at or above `at_least`, else `otherwise`.

    label: the class whose probability it is; None for a regression's value.
    """

    label: str | None
    score: int
    at_least: float
    name: str
    otherwise: str | None

    def to_json(self) -> dict[str, object]:
        """What the record says of it: all that is needed to decide again."""
        return {
            "class": self.label,
            "at_least": self.at_least,
            "name": self.name,
            "otherwise": self.otherwise,
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any], vocabulary: "Vocabulary") -> Self:
        """What `to_json` gave, for a model of these classes. Raises PolicyError."""
        return cls(
            label=said["class"],
            score=vocabulary.score(said["class"]),
            at_least=said["at_least"],
            name=said["name"],
            otherwise=said["otherwise"],
        )

    def decide(self, scores: Scores) -> str | None:
        """What is decided of one instance."""
        return self.name if scores[self.score] >= self.at_least else self.otherwise


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What expressions about one model may name.

    classes: None for a regression; class_names: what answers call them. seen: ranges at
    registration, where they matter. personal: by column, the levels that are personal data.
    """

    schema: ModelSchema
    classes: tuple[Level, ...] | None
    class_names: tuple[str, ...] | None
    threshold: Threshold | None = None
    seen: SeenRanges | None = None
    personal: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def deciding_by(self, threshold: Threshold) -> "Vocabulary":
        """The same names, and decision()."""
        return replace(self, threshold=threshold)

    def score(self, name: str | None) -> int:
        """The place of a class's probability among the scores; None names a regression's value.

        Raises PolicyError.
        """
        if (name is None) != (self.class_names is None):
            kind = "a regression: it has a value" if name is not None else "a classifier: name one"
            raise PolicyError(f"the model is {kind}, and `class` is for classifiers")
        if name is None or self.class_names is None:
            return 0
        if name not in self.class_names:
            raise PolicyError(unknown("class", name, self.class_names))
        return self.class_names.index(name)


@dataclass(frozen=True, slots=True)
class Term:
    """A part of an expression with its kind.

    constant: its value, if it is one. levels: the only values it can have besides missing, None
    where any of its kind can come.
    """

    kind: Kind
    run: Run
    constant: Value = None
    levels: frozenset[Level] | None = None


def kind_of(column: Column) -> Kind:
    """The kind of a column's cells."""
    level_type = column.level_type
    if level_type is not None:
        return KINDS[level_type]
    return "boolean" if column.kind == "boolean" else "number"


def closed_levels(column: Column) -> frozenset[Level] | None:
    """The levels of a column that takes no others."""
    return frozenset(column.levels) if column.levels and column.unknown == "refuse" else None


def unknown(what: str, name: Level, known: Sequence[str]) -> str:
    """That a name is not known, and which one may have been meant."""
    folded = {candidate.casefold(): candidate for candidate in known}
    near = get_close_matches(str(name).casefold(), folded, n=1)
    hint = f"did you mean {folded[near[0]]!r}?" if near else f"there are {', '.join(known[:8])}"
    return f"there is no {what} {name!r}; {hint}{', ...' if not near and known[8:] else ''}"


def constant(value: Level) -> Term:
    """A value written in the rule."""
    return Term(KIND_OF[type(value)], lambda _row, _scores: value, constant=value)


def score(place: int) -> Term:
    """One of the served numbers."""
    return Term("number", lambda _row, scores: scores[place])


def compared(left: Term, compare: Compare, right: Term) -> Run:
    """Whether the comparison holds; not if a side is missing."""
    first, second, known = left.run, right.run, right.constant
    if known is not None:
        return lambda row, scores: (
            (found := first(row, scores)) is not None and compare(found, known)
        )

    def run(row: Row, scores: Scores) -> bool:
        one, other = first(row, scores), second(row, scores)
        return one is not None and other is not None and compare(one, other)

    return run


def arithmetic(calculate: Callable[[float, float], float], left: Term, right: Term) -> Term:
    """A number of two; missing if one of them is, and where there is no result."""
    first, second = left.run, right.run

    def run(row: Row, scores: Scores) -> Value:
        one, other = first(row, scores), second(row, scores)
        if one is None or other is None:
            return None
        try:
            return calculate(float(one), float(other))
        except ZeroDivisionError:
            return None

    return Term("number", run)


def conjunction(runs: Sequence[Run]) -> Run:
    """Whether all of the conditions hold."""
    if len(runs) == 1:
        return runs[0]
    if len(runs) == 2:
        first, second = runs
        return lambda row, scores: first(row, scores) and second(row, scores)
    return lambda row, scores: all(run(row, scores) for run in runs)


def disjunction(runs: Sequence[Run]) -> Run:
    """Whether one of the conditions holds."""
    if len(runs) == 2:
        first, second = runs
        return lambda row, scores: first(row, scores) or second(row, scores)
    return lambda row, scores: any(run(row, scores) for run in runs)
