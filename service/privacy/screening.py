"""Inputs as they are kept: what a client wrote into a column that takes any text is searched."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from prometheus_client import Counter

from schemas import Column, DecodedBody, ModelSchema
from service.metrics import Metrics
from service.privacy.entities import ENTITIES, Entity
from service.privacy.scanning import blacked_out

Detector = Literal["input", "comment"]
Action = Literal["redact", "allow"]
ACTIONS: Mapping[Detector, tuple[Action, ...]] = {
    "input": ("redact", "allow"),
    "comment": ("redact",),
}
"""`block`, the third of the contract, is what registration does, in a process nobody scrapes."""

PersonalLevels = Mapping[str, frozenset[str]]
"""By column, the levels a model knows that are personal data; only where that was allowed."""


class PrivacyCounts:
    """The children of one detector, made at zero."""

    def __init__(self, metrics: Metrics, detector: Detector) -> None:
        scans, findings = metrics.privacy_scans, metrics.privacy_findings
        self._scans = {found: scans.labels(detector, _OUTCOMES[found]) for found in _OUTCOMES}
        self._findings: dict[tuple[Entity, Action], Counter] = {
            (entity, action): findings.labels(detector, entity, action)
            for entity in ENTITIES
            for action in ACTIONS[detector]
        }

    def blacked_out(self, text: str) -> str:
        """The text without personal data, and its findings counted."""
        kept, found = blacked_out(text)
        self._scans[bool(found)].inc()
        self.count(found, "redact")
        return kept

    def count(self, found: Iterable[Entity], action: Action) -> None:
        """Findings, and what was done about them."""
        for entity in found:
            self._findings[entity, action].inc()


_OUTCOMES = {False: "clean", True: "found"}


@dataclass(frozen=True, slots=True, eq=False)
class Screening:
    """Of one model version: the columns whose texts are searched, by number.

    allowed: by column and code, what the levels hold that may be stored all the same.
    """

    open_texts: tuple[int, ...]
    allowed: Mapping[int, Mapping[float, tuple[Entity, ...]]]
    counts: PrivacyCounts

    @classmethod
    def of(cls, schema: ModelSchema, personal: PersonalLevels, metrics: Metrics) -> Self | None:
        """None where no column takes any text, nor a level that is personal data."""
        open_texts = tuple(i for i, column in enumerate(schema.columns) if takes_any_text(column))
        allowed = {
            i: _findings(column, personal[column.name])
            for i, column in enumerate(schema.columns)
            if personal.get(column.name)
        }
        if not open_texts and not allowed:
            return None
        return cls(open_texts, allowed, PrivacyCounts(metrics, "input"))

    def kept(self, body: DecodedBody) -> DecodedBody:
        """The rows as they are stored and shown: texts that are no level of the model's are
        blacked out. What the model is fed, the codes, stays.
        """
        changes: dict[int, dict[int, str]] = {}
        for number, (row, codes) in enumerate(zip(body.rows, body.codes, strict=True)):
            for i in self.open_texts:
                text = row[i]
                if isinstance(text, str) and not codes[i] >= 0:  # NaN or UNSEEN_CODE: no level
                    kept = self.counts.blacked_out(text)
                    if kept != text:
                        changes.setdefault(number, {})[i] = kept
            if self.allowed:
                self._count_allowed(codes)
        if not changes:
            return body
        rows = [
            tuple(changes[number].get(i, value) for i, value in enumerate(row))
            if number in changes
            else row
            for number, row in enumerate(body.rows)
        ]
        return replace(body, rows=rows)

    def _count_allowed(self, codes: Sequence[float]) -> None:
        for i, found_in in self.allowed.items():
            self.counts.count(found_in.get(codes[i], ()), "allow")


def takes_any_text(column: Column) -> bool:
    """Levels the model does not know are accepted, and levels are texts."""
    return column.level_type == "string" and column.unknown != "refuse"


def _findings(column: Column, personal: frozenset[str]) -> dict[float, tuple[Entity, ...]]:
    return {
        float(code): blacked_out(level)[1]
        for code, level in enumerate(column.levels or ())
        if isinstance(level, str) and level in personal
    }
