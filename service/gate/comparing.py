"""The whole comparison: read the rows by both versions, measure both, judge every difference."""

from dataclasses import dataclass

from service.errors import InvalidInputError, UsageError
from service.gate.attributions import (
    attribution_findings,
    background_effect,
    stability_findings,
)
from service.gate.bounds import Bounds
from service.gate.card import card_finding
from service.gate.findings import Finding, GateReport, judged, skipped
from service.gate.identity import identity_findings
from service.gate.labels import label_findings
from service.gate.predictions import prediction_findings
from service.gate.rows import Read, Rows
from service.gate.sides import Depth, Pair, Side
from service.registry import RegisteredModel, Registry
from service.registry.layout import Layout

ALIASES = ("serving", "previous")


def named_version(registry: Registry, text: str) -> RegisteredModel:
    """`name:version`, `name@serving`, `name@previous`, or a name for what serves; ready to explain.

    Raises UsageError, UnknownError, DamagedVersionError.
    """
    name, number, alias = _parsed(text)
    layout = registry.layout
    version = number
    if version is None:
        version = layout.previous(name) if alias == "previous" else layout.serving(name)
    if version is None:
        raise UsageError(f"there is no version {text!r} in {layout.root}")
    return registry.load(name, version, for_worker=True)


def _parsed(text: str) -> tuple[str, int | None, str]:
    name, colon, number = text.partition(":")
    if colon:
        if not number.isascii() or not number.isdigit():
            raise UsageError(f"{text!r}: a version is a number, as in credit:2")
        return name, int(number), ""
    name, at, alias = text.partition("@")
    if at and alias not in ALIASES:
        raise UsageError(f"{text!r}: the aliases are {' and '.join(ALIASES)}")
    return name, None, alias


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Compares a new version with an old one. layout: where the new one's card is; None: it is not
    looked at.
    """

    bounds: Bounds
    depth: Depth
    layout: Layout | None = None

    def compare(self, old: RegisteredModel, new: RegisteredModel, rows: Rows) -> GateReport:
        """Every check there is. Cost: seconds, by the rows and `Depth`.

        Raises InvalidInputError for rows the old version cannot take or that are too few,
        CheckFailedError where a model fails.
        """
        identity = [*identity_findings(old, new, self.bounds), *self._card(new)]
        before = rows.read_by(old)
        self._check_enough(len(before.numbers), rows, "the old version takes")
        after, reason = _read_if_possible(rows, new)
        refused = self._refused(before, after, reason)
        readable = {*after.numbers}
        both = [number for number in before.numbers if number in readable]
        if len(both) < self.bounds.rows_min:
            left = skipped("comparison", f"only {len(both)} rows can be read by both versions")
            return self._report(old, new, rows, (len(both), 0), [*identity, refused, left])
        explained = min(self.depth.rows_of(side, len(both)) for side in (old, new))
        seed = self.depth.seed
        pair = Pair(
            Side.of(old, before.only(both), explained=explained, seed=seed),
            Side.of(new, after.only(both), explained=explained, seed=seed),
        )
        findings = [*identity, refused, *self._enough_explained(old, new, explained)]
        findings += self._measured(pair)
        labels = rows.labels(both)
        if labels is not None:
            findings += label_findings(pair, labels, self.bounds, seed=seed)
        return self._report(old, new, rows, (len(both), explained), findings)

    def _card(self, new: RegisteredModel) -> list[Finding]:
        if self.layout is None:
            return []
        return [card_finding(self.layout, new, is_required=self.bounds.require_card)]

    def _measured(self, pair: Pair) -> list[Finding]:
        return [
            *prediction_findings(pair, self.bounds),
            *attribution_findings(pair, self.bounds),
            *background_effect(pair, self.bounds),
            *stability_findings(pair, self.bounds),
        ]

    def _enough_explained(
        self, old: RegisteredModel, new: RegisteredModel, explained: int
    ) -> list[Finding]:
        """Blocks where both versions explain, too slowly for their attributions to be compared."""
        explain_both = old.explainer is not None and new.explainer is not None
        least = self.bounds.explained_rows_min
        if not explain_both or explained >= least:
            return []
        most, seconds = self.depth.explained_rows, self.depth.seconds
        limits = f"in --seconds {seconds:g} (--explained {most})"
        detail = f"only {explained} rows could be explained {limits}"
        return [judged("explained_rows", explained, least, better="high", detail=detail)]

    def _check_enough(self, found: int, rows: Rows, who: str) -> None:
        if found < self.bounds.rows_min:
            raise InvalidInputError(
                f"{who} {found} rows of {rows.origin}; a comparison takes {self.bounds.rows_min} "
                "(bound rows_min)"
            )

    def _refused(self, before: Read, after: Read, reason: str) -> Finding:
        """Rows only the new version refuses are requests it would break."""
        readable = {*after.numbers}
        lost = [number for number in before.numbers if number not in readable]
        share = len(lost) / len(before.numbers)
        if lost and not reason:
            reason = after.refused.get(lost[0], "")
        return judged("refused_rows", share, self.bounds.refused_rows, detail=reason)

    def _report(
        self,
        old: RegisteredModel,
        new: RegisteredModel,
        rows: Rows,
        counts: tuple[int, int],
        findings: list[Finding],
    ) -> GateReport:
        compared, explained = counts
        return GateReport(
            old=f"{old.name}:{old.version}",
            new=f"{new.name}:{new.version}",
            origin=rows.origin,
            rows=compared,
            explained=explained,
            findings=findings,
        )


def _read_if_possible(rows: Rows, model: RegisteredModel) -> tuple[Read, str]:
    """Nothing, with the reason, where the rows lack what the new version must have."""
    import numpy as np

    try:
        return rows.read_by(model), ""
    except InvalidInputError as error:
        return Read((), np.empty((0, len(model.schema.columns)))), str(error)
