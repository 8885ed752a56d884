"""One instance of a record, and what counted for and against what was answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.narratives.numerals import in_full, plain, signed
from service.narratives.said import Document, Key, Said, number, quoted, said
from service.registry.naming import class_text

CLEAR = 2.0
"""Standard errors that an estimate must differ from zero by to be told of as for or against."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is argued for: a column's number of the output, times sign, speaks for `name`.

    name: of a class; None for a regression, whose value is raised.
    """

    output: int
    sign: int
    name: str | None


@dataclass(frozen=True, slots=True)
class Effect:
    """A column's part in one output of one case."""

    column: str
    value: float
    path: tuple[Key, ...]
    is_clear: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One instance; record: the whole document."""

    record: Document
    index: int

    @property
    def prediction(self) -> Mapping[str, Any] | None:
        """None: erased."""
        found: Mapping[str, Any] | None = self.record["predictions"][self.index]
        return found

    @property
    def instance(self) -> Mapping[str, Any]:
        """Its cells by column; empty where they are erased."""
        return self.record["instances"][self.index] or {}

    @property
    def explanation(self) -> Mapping[str, Any]:
        """The record's."""
        found: Mapping[str, Any] = self.record["explanation"]
        return found

    @property
    def rule(self) -> Mapping[str, Any] | None:
        """How a decision is made of a score, where the document says so and it was."""
        rule: Mapping[str, Any] | None = self.record.get("decision_rule")
        return rule if self.decision is not None else None

    @property
    def decision(self) -> str | None:
        """What policy made of the prediction."""
        return (self.prediction or {}).get("decision")

    @property
    def answer(self) -> str | None:
        """The label's text; None for a regression."""
        if self.prediction is None or "label" not in self.prediction:
            return None
        return class_text(self.prediction["label"])

    @property
    def probabilities(self) -> Mapping[str, float]:
        """By class; empty for a regression, and where they are withheld."""
        found: Mapping[str, float] | None = (self.prediction or {}).get("probabilities")
        return found or {}

    @property
    def score_path(self) -> tuple[Key, ...] | None:
        """Where the score lies that the answer, or decision, is about; None where withheld."""
        if self.answer is None:
            is_known = (self.prediction or {}).get("value") is not None
            return ("predictions", self.index, "value") if is_known else None
        name = self.subject
        if name is None or name not in self.probabilities:
            return None
        return ("predictions", self.index, "probabilities", name)

    @property
    def subject(self) -> str | None:
        """The class that the decision is about, else the answer's."""
        rule = self.rule
        return self.answer if rule is None or rule["class"] is None else rule["class"]

    @property
    def aim(self) -> Aim | None:
        """None where none of the explained outputs says anything of it."""
        names: Sequence[str] = self.explanation["output_names"]
        name = self.subject
        if name is None:
            return Aim(0, 1, None)
        if name in names:
            return Aim(names.index(name), 1, name)
        return Aim(0, -1, name) if len(names) == 1 else None

    @property
    def values(self) -> Sequence[Sequence[float]] | None:
        """(F, C); None where there are none, or none any more."""
        found: Sequence[Sequence[float]] | None = _entry(self.explanation["values"], self.index)
        return found

    @property
    def visible(self) -> Sequence[Mapping[str, Any]] | None:
        """What a role with masked columns gets instead of values."""
        found: Sequence[Mapping[str, Any]] | None
        found = _entry(self.explanation.get("visible"), self.index)
        return found

    @property
    def reasons(self) -> Mapping[str, Any] | None:
        """What is said of an adverse decision; None where there is nothing to say."""
        found: Mapping[str, Any] | None = _entry(self.explanation.get("reasons"), self.index)
        return found

    def effects(self, output: int) -> list[Effect]:
        """Of all columns, in the schema's order; empty where there are none."""
        errors = _entry(self.explanation.get("standard_errors"), self.index)
        return [
            Effect(
                column,
                row[output],
                ("explanation", "values", self.index, place, output),
                errors is None or abs(row[output]) > CLEAR * errors[place][output],
            )
            for place, (column, row) in enumerate(
                zip(self.explanation["feature_names"], self.values or (), strict=False)
            )
        ]

    def strongest(self, aim: Aim, sign: int, most: int) -> list[Effect]:
        """Those clearly for (sign 1) or against (-1) the aim, the largest first."""
        found = [
            effect
            for effect in self.effects(aim.output)
            if effect.is_clear and effect.value * aim.sign * sign > 0
        ]
        return sorted(found, key=lambda effect: -abs(effect.value))[:most]

    def cell(self, column: str) -> Said:
        """What the instance holds there: a number, or its text in quotation marks."""
        value = self.instance.get(column)
        if value is None:
            return Said("not given")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Said(quoted(class_text(value)))
        return number(self.record, "instances", self.index, column)

    def named_cell(self, effect: Effect) -> Said:
        """A column with its cell and its number."""
        shown = number(self.record, *effect.path, style=signed)
        return said(quoted(effect.column), " = ", self.cell(effect.column), " (", shown, ")")

    def score_and_bound(self) -> tuple[Said, Said, bool] | None:
        """The score, the threshold and whether that is reached; in full where they would else
        read the same. None where either is not known.
        """
        rule, path = self.rule, self.score_path
        if rule is None or path is None:
            return None
        score = _at(self.record, path)
        bound = rule["at_least"]
        style = in_full if plain(score) == plain(bound) and score != bound else plain
        shown = number(self.record, "decision_rule", "at_least", style=style)
        return number(self.record, *path, style=style), shown, score >= bound


def _entry(rows: Sequence[Any] | None, index: int) -> Any:  # noqa: ANN401 - parsed JSON
    return None if rows is None or index >= len(rows) else rows[index]


def _at(document: Document, path: Sequence[Key]) -> float:
    found: Any = document
    for key in path:
        found = found[key]
    return float(found)
