"""A version's card.md: what the registry knows of it, written once and part of its digest."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas import Column, ModelSchema
from service.registry.card import (
    CAVEAT,
    allowed_line,
    cost_line,
    explains_line,
    proven_line,
)
from service.registry.manifest import Manifest
from service.registry.work import Report

SHOWN_LEVELS = 12
MEASURES = {
    "log_loss": "log-loss",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "auc": "AUC",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R2",
}
FIT_CAVEAT = (
    "Measured on the data the version was registered with, most likely those it was trained on: "
    "expect it to do worse on new rows."
)


def frozen_card(
    manifest: Manifest, report: Report, schema: ModelSchema, baseline: Mapping[str, Any]
) -> str:
    """Markdown. baseline: the parsed baseline.json; of its ranges the card shows the middle four
    fifths, because the ends are single rows. Levels that are personal data are not shown.
    """
    parts = [
        f"# {manifest.name}, version {manifest.version}",
        f"Registered at {manifest.created_at:%Y-%m-%d %H:%M} UTC.",
        *_part("Model", _table(("what", "is"), _identity(manifest))),
        *_part("Input columns", _columns(manifest, schema, baseline)),
        *_part("Registration data", *_data(manifest, report)),
        *_part(
            "How decisions are explained",
            f"Method: {explains_line(manifest.explainer)}.",
            explanation_text(manifest),
        ),
        *_part("Limits of these explanations", _bullets(limits(manifest))),
        *_part("Proof and cost", _bullets(_proof(manifest))),
    ]
    notes = [*manifest.warnings, *map(allowed_line, manifest.allowed_columns)]
    if notes:
        parts += _part("Warnings of the registration", _bullets(notes))
    return "\n\n".join(parts) + "\n"


def _part(title: str, *paragraphs: str) -> list[str]:
    return [f"## {title}", *(text for text in paragraphs if text)]


def _identity(manifest: Manifest) -> list[Sequence[str]]:
    artifact, explainer = manifest.artifact, manifest.explainer
    outputs = ", ".join(map(code, explainer.output_names))
    rows = [
        ("task", manifest.task),
        ("classes", ", ".join(code(label) for label in manifest.classes or ()) or "none"),
        ("library", f"{artifact.library}, format {artifact.format}"),
        ("trees", "" if artifact.trees_used is None else str(artifact.trees_used)),
        ("fetched from", code(artifact.source) if artifact.source else ""),
        ("explained outputs", f"{outputs} in {explainer.output_space}, link {explainer.link}"),
        ("model file", code(artifact.digest)),
        ("schema", code(manifest.schema_digest)),
        ("background", code(manifest.background.digest)),
        ("explainer settings", code(explainer.config_digest)),
        ("service version", manifest.service_version),
    ]
    return [row for row in rows if row[1]]


def _columns(manifest: Manifest, schema: ModelSchema, baseline: Mapping[str, Any]) -> str:
    hidden = {entry.column for entry in manifest.allowed_columns if entry.findings}
    rows = [
        (
            code(column.name),
            column.kind,
            _content(column, baseline["columns"][column.name], is_shown=column.name not in hidden),
            f"{baseline['columns'][column.name]['missing_share']:.1%}"
            + ("" if column.nullable else ", not allowed"),
        )
        for column in schema.columns
    ]
    return _table(("column", "type", "levels, or the middle 80 % of the rows", "missing"), rows)


def _content(column: Column, seen: Mapping[str, Any], *, is_shown: bool) -> str:
    levels = column.levels
    if levels is not None and not is_shown:
        return f"{len(levels)} levels, not shown"
    if levels is not None:
        more = len(levels) - SHOWN_LEVELS
        shown = ", ".join(code(level) for level in levels[:SHOWN_LEVELS])
        return shown + (f" and {more} more" if more > 0 else "")
    edges = seen.get("edges")
    if not edges:
        return ""
    if edges[0] == edges[-1]:
        return f"{edges[0]:.4g}"
    return f"{edges[0]:.4g} to {edges[-1]:.4g}"


def _data(manifest: Manifest, report: Report) -> list[str]:
    background = manifest.background
    told = [
        (
            f"{background.drawn_from_rows} rows, of which {background.rows} were drawn with seed "
            f"{background.seed} as the background."
        )
    ]
    if report.ignored_columns:
        told.append("Not used: " + ", ".join(map(code, report.ignored_columns)) + ".")
    if manifest.fit is not None:
        measures = manifest.fit.measures.items()
        rows = [(MEASURES.get(name, name), f"{value:.4g}") for name, value in measures]
        told += [_table(("measure", f"on {manifest.fit.rows} rows"), rows), FIT_CAVEAT]
    if report.strongest:
        shares = ", ".join(f"{code(name)} {share:.0%}" for name, share in report.strongest[:5])
        told.append(f"Largest shares of all attribution, over the background: {shares}.")
    return told


def _proof(manifest: Manifest) -> list[str]:
    cost = f"Cost on the registering machine: {cost_line(manifest.cost)}."
    if manifest.explainer.method is None:
        return [cost]
    return [f"Compared at registration: {proven_line(manifest.proof)}.", cost]


DEPENDENCE = (
    "Interventional values take a column as absent by putting in the background's cells, whatever "
    "the other columns hold. That breaks the dependence between columns: some of the rows so made "
    "may be impossible, and the model is asked about them all the same."
)
USE = (
    "A column the model does not use gets nothing, however closely it goes with one that it does "
    "use. What matters in the world and what this model reads are two things."
)
REFERENCE = (
    "They are differences from the background's mean output. Another background gives other values "
    "for the same prediction."
)
SAMPLED = (
    "They are sampled: another seed gives other values, within the standard errors that every "
    "answer carries. A value within two of them of zero has no certain sign."
)


def limits(manifest: Manifest) -> list[str]:
    """What nobody may read into these explanations."""
    explainer = manifest.explainer
    if explainer.method is None:
        return ["This version's decisions are not explained."]
    is_linked = explainer.link in ("logit", "softmax")
    unit = f"They add up in {explainer.output_space}{', not in probabilities' * is_linked}."
    sampled = [SAMPLED] if explainer.method == "permutation" else []
    return [CAVEAT, DEPENDENCE, USE, REFERENCE, unit, *sampled]


def explanation_text(manifest: Manifest) -> str:
    """The method in a sentence an auditor can check."""
    explainer = manifest.explainer
    if explainer.method is None:
        return f"Not at all yet: {explainer.reason}."
    kind = "Estimated interventional" if explainer.method == "permutation" else "Interventional"
    return (
        f"{kind} Shapley values on the raw input columns, in {explainer.output_space}, "
        f"against {manifest.background.rows} background rows drawn with seed "
        f"{manifest.background.seed} ({manifest.background.digest}).{_called_text(manifest)}"
    )


def _called_text(manifest: Manifest) -> str:
    """What an auditor must know of values that come from calls of the model."""
    explainer = manifest.explainer
    if explainer.calls is None:
        return ""
    if explainer.method == "exact":
        return " Exact: every coalition of columns was evaluated through the model itself."
    return (
        f" Estimates from antithetic permutation pairs, {explainer.calls.passes} or more from each "
        "background row, with a seed per instance; every answer carries their standard errors, and "
        f"sampling stops once the largest is below {explainer.calls.target:.1%} of the "
        "attributions' total or the budget is spent. The values of a row add up to its output "
        "all the same."
    )


def code(text: object) -> str:
    """Text of the model or the data as Markdown shows it unread: no markup, one line."""
    line = " ".join(str(text).replace("`", "'").split()) or " "
    return "`" + line.replace("|", r"\|") + "`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
