"""`[models.NAME.recourse]`: which decision people may want, and what they could do about it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from explainers.base import FloatArray
from explainers.counterfactual import ColumnRule
from schemas.model_schema import Column
from service.policy.terms import PolicyError, Threshold, Vocabulary, unknown

MOST_ANSWERS = 10
MOST_CHANGES = 8
MOST_ROWS = 200_000
DEFAULT_ROWS = 20_000
DEFAULT_STEPS = 100
"""Of a number column's range, about: what a step is where the file gives none."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LevelText = StrictBool | StrictInt | StrictFloat | StrictStr


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ColumnTerms(_Strict):
    """What may be advised of one column: `"immutable"`, `"free"`, or a table of limits.

    cost: of a unit by which a number moves, or of changing a category.
    """

    immutable: bool = False
    direction: Literal["up", "down", "both"] = "both"
    low: Number | None = None
    high: Number | None = None
    step: Positive | None = None
    levels: Annotated[tuple[LevelText, ...], Field(strict=False, min_length=1)] | None = None
    cost: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _word(cls, node: object) -> object:
        words: Mapping[object, object] = {"immutable": {"immutable": True}, "free": {}}
        if not isinstance(node, str):
            return node
        if node not in words:
            raise ValueError('give "immutable", "free" or a table of limits')
        return words[node]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.immutable and len(self.model_fields_set) > 1:
            raise ValueError("what is immutable has no limits")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self


class RecourseSection(_Strict):
    """What counterfactuals of a model lead to and may change. Columns that are not named are
    `others`: immutable, unless the file says otherwise.
    """

    target: LevelText
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    most: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = 3
    changes: Annotated[int, Field(ge=1, le=MOST_CHANGES)] = 4
    rows: Annotated[int, Field(ge=100, le=MOST_ROWS)] = DEFAULT_ROWS
    others: Literal["immutable", "free"] = "immutable"
    columns: dict[str, ColumnTerms] = {}

    @field_validator("target")
    @classmethod
    def _text(cls, node: LevelText) -> str:
        """Classes are named as in answers."""
        return str(node).lower() if isinstance(node, bool) else str(node)


@dataclass(frozen=True, slots=True)
class Goal:
    """A served outcome as a number that has to reach `limit`.

    threshold: of the model's decision, and whether its upper side is wanted; None: the class with
    the highest probability decides. place: of the score, or the class.
    """

    target: str
    margin: float
    place: int
    limit: float
    threshold: Threshold | None = None
    is_above: bool = True

    @property
    def decided_by(self) -> dict[str, object] | None:
        """The threshold as records have it."""
        return None if self.threshold is None else self.threshold.to_json()

    @classmethod
    def of(cls, section: RecourseSection, vocabulary: Vocabulary) -> Self:
        """That of a section, for the model of this vocabulary. Raises PolicyError."""
        threshold, target, margin = vocabulary.threshold, str(section.target), section.margin
        if threshold is None:
            if vocabulary.class_names is None:
                raise PolicyError("a regression needs [models.NAME.decision] to have a target")
            place = vocabulary.score(target)
            return cls(target, margin, place, margin or float(np.nextafter(0, 1)))
        names = [threshold.name] + [threshold.otherwise] * (threshold.otherwise is not None)
        if target not in names:
            raise PolicyError(unknown("outcome of the decision", target, [str(n) for n in names]))
        is_above = target == threshold.name
        limit = threshold.at_least + (margin if is_above else -margin)
        if threshold.label is not None and not (limit <= 1 if is_above else limit > 0):
            raise PolicyError("no probability is that far beyond the threshold; lower margin")
        if not is_above:  # below is below, not at
            limit = -float(np.nextafter(limit, -math.inf))
        return cls(target, margin, threshold.score, limit, threshold, is_above)

    def scores(self, served: FloatArray) -> FloatArray:
        """(N,) numbers that reach `limit` exactly where the outcome is the wanted one, with its
        margin, of (N, K) served scores.
        """
        wanted: FloatArray = served[:, self.place]
        if self.threshold is not None:
            return wanted if self.is_above else -wanted
        others: FloatArray = np.delete(served, self.place, axis=1).max(axis=1)
        return wanted - others

    def is_met(self, served: FloatArray) -> bool:
        """The outcome of (K,) scores is the wanted one already, whatever the margin."""
        if self.threshold is not None:
            return self.threshold.decide(served.tolist()) == self.target
        return int(np.argmax(served)) == self.place


@dataclass(frozen=True, slots=True, eq=False)
class Recourse:
    """A section bound to one model's columns: F rules in their order, and the same columns as far
    as anybody could go.
    """

    goal: Goal
    most: int
    changes: int
    rows: int
    rules: tuple[ColumnRule, ...]
    wider: tuple[ColumnRule, ...]

    @classmethod
    def of(cls, section: RecourseSection, vocabulary: Vocabulary) -> Self:
        """Raises PolicyError, naming the column, for what does not fit it."""
        columns = vocabulary.schema.columns
        names = vocabulary.schema.names
        for name in section.columns:
            if name not in names:
                raise PolicyError(unknown("column", name, names))
        default = ColumnTerms(immutable=section.others == "immutable")
        rules, wider = [], []
        for place, column in enumerate(columns):
            is_named = column.name in section.columns
            terms = section.columns[column.name] if is_named else default
            with _about(column.name):
                rule, widest = _rules(column, terms, _Seen.of(vocabulary, place))
            rules.append(rule)
            wider.append(widest)
        goal = Goal.of(section, vocabulary)
        return cls(goal, section.most, section.changes, section.rows, tuple(rules), tuple(wider))


@contextmanager
def _about(name: str) -> Iterator[None]:
    try:
        yield
    except (PolicyError, ValueError) as error:
        raise PolicyError(f"column {name!r}: {str(error).removeprefix(f'{name}: ')}") from None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of a column at registration, and which of its levels are nobody's business."""

    low: float | None
    high: float | None
    personal: frozenset[str]

    @classmethod
    def of(cls, vocabulary: Vocabulary, place: int) -> Self:
        column, seen = vocabulary.schema.columns[place], vocabulary.seen
        low, high = (-math.inf, math.inf) if seen is None else (seen.lows[place], seen.highs[place])
        low = max(low, -math.inf if column.minimum is None else column.minimum)
        high = min(high, math.inf if column.maximum is None else column.maximum)
        personal = vocabulary.personal.get(column.name, frozenset())
        is_known = math.isfinite(low) and math.isfinite(high) and low <= high
        return cls(low, high, personal) if is_known else cls(None, None, personal)


def _rules(column: Column, terms: ColumnTerms, seen: _Seen) -> tuple[ColumnRule, ColumnRule]:
    """The rule, and the widest one."""
    if column.kind in ("category", "boolean"):
        return _levels(column, terms, seen)
    if terms.levels is not None:
        raise PolicyError("only categories have levels")
    low = seen.low if terms.low is None else terms.low
    high = seen.high if terms.high is None else terms.high
    if low is None or high is None or low >= high:
        if terms.immutable or (low is not None and low == high):
            fixed = ColumnRule(column.name, is_immutable=True)
            return fixed, fixed
        raise PolicyError("give low and high: no range was seen at registration")
    if column.minimum is not None and low < column.minimum:
        raise PolicyError("low is below the schema's minimum")
    if column.maximum is not None and high > column.maximum:
        raise PolicyError("high is above the schema's maximum")
    step = terms.step or (1.0 if column.kind == "integer" else _round_step(high - low))
    if column.kind == "integer" and step % 1:
        raise PolicyError("an integer column needs a whole step")
    rule = ColumnRule(
        *(column.name, terms.immutable, terms.direction, low, high, step),
        cost=terms.cost or 1.0 / (high - low),
    )
    lowest, highest = min(low, _or(seen.low, low)), max(high, _or(seen.high, high))
    return rule, replace(rule.freed, low=lowest, high=highest)


def _levels(column: Column, terms: ColumnTerms, seen: _Seen) -> tuple[ColumnRule, ColumnRule]:
    if (terms.low, terms.high, terms.step) != (None, None, None):
        raise PolicyError("low, high and step are for numbers")
    known = (False, True) if column.levels is None else column.levels
    shown = [level for level in known if level not in seen.personal]
    listed = shown if terms.levels is None else terms.levels
    if terms.direction != "both" and terms.levels is None and column.kind == "category":
        raise PolicyError("a direction needs levels: list them in their order")
    codes = []
    for level in listed:
        same = [code for code, one in enumerate(known) if one == level and _alike(one, level)]
        if not same or level not in shown:
            raise PolicyError(unknown("level", level, [str(one) for one in shown]))
        codes.append(float(same[0]))
    if len(set(codes)) != len(codes):
        raise PolicyError("levels names one twice")
    rule = ColumnRule(
        *(column.name, terms.immutable, terms.direction),
        levels=tuple(codes),
        cost=terms.cost or 1.0,
    )
    every = tuple(float(code) for code, level in enumerate(known) if level in shown)
    return rule, replace(rule.freed, levels=every)


def _alike(level: object, named: object) -> bool:
    """1 and true are equal in Python, not in JSON."""
    return isinstance(level, bool) == isinstance(named, bool)


def _or(number: float | None, default: float) -> float:
    return default if number is None else number


def _round_step(width: float) -> float:
    """A hundredth of the width, or less: 1, 2 or 5 times a power of ten."""
    rough = width / DEFAULT_STEPS
    exponent = math.floor(math.log10(rough))
    digit = max(digit for digit in (1, 2, 5) if digit * 10.0**exponent <= rough * (1 + 1e-9))
    return float(f"{digit}e{exponent}")
