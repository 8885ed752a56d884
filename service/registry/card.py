"""What a person reads of a version: the summary after registration and the model card."""

from typing import TYPE_CHECKING

from schemas import Column, ModelSchema
from service.registry.manifest import CostEntry, Manifest

if TYPE_CHECKING:
    from service.registry.work import Report

SHOWN_LEVELS = 6
CAVEAT = "Attributions describe this model's behaviour against the background; they are not causes."


def summary(manifest: Manifest, report: "Report", schema: ModelSchema) -> str:
    """The registration in a screenful: what was inferred, how it explains, what it costs."""
    explainer, cost = manifest.explainer, manifest.cost
    lines = [
        f"registered {manifest.name} version {manifest.version}",
        f"  model       {manifest.artifact.library} {manifest.task}"
        + (f", classes {', '.join(map(str, manifest.classes))}" if manifest.classes else "")
        + (f", {manifest.artifact.trees_used} trees" if manifest.artifact.trees_used else ""),
        f"  data        {manifest.proof.data_rows} rows, {report.quality}",
        f"  explains    {explainer.method} in {explainer.output_space}"
        if explainer.method
        else f"  explains    no: {explainer.reason}",
        f"  background  {manifest.background.rows} rows, seed {manifest.background.seed}",
        f"  cost        {cost_line(cost)}",
    ]
    if manifest.proof.oracle_gap is not None:
        lines.append(
            f"  proven      predictions within {manifest.proof.parse_gap:.1e}, values within "
            f"{manifest.proof.oracle_gap:.1e} of brute force through the model"
        )
    if report.strongest:
        lines.append("  strongest   " + strongest_line(report.strongest))
    if report.ignored_columns:
        lines.append("  not used    " + ", ".join(report.ignored_columns))
    lines += [f"  warning     {text}" for text in report.warnings]
    return "\n".join([*lines, "  columns", *(f"    {column_line(c)}" for c in schema.columns)])


def cost_line(cost: CostEntry) -> str:
    """Calibrated microseconds a row."""
    return f"predict {cost.predict_row * 1e6:.0f} us, explain {cost.explain_row * 1e6:.0f} us a row"


def strongest_line(strongest: tuple[tuple[str, float], ...]) -> str:
    """Columns by share of all attribution over the background."""
    return ", ".join(f"{name} {share:.0%}" for name, share in strongest[:5])


def column_line(column: Column) -> str:
    """One column as registration understood it."""
    text = f"{column.name}: {column.kind}"
    if column.levels is not None:
        shown = ", ".join(map(str, column.levels[:SHOWN_LEVELS]))
        more = len(column.levels) - SHOWN_LEVELS
        text += f" ({shown}{f', {more} more' if more > 0 else ''})"
    return text + (", may be missing" if column.nullable else "")


def model_card(manifest: Manifest, report: "Report", schema: ModelSchema) -> str:
    """The version's card.md: what the registry knows, and headings a person fills in."""
    return "\n".join(
        [
            f"# {manifest.name}, version {manifest.version}",
            "",
            "```",
            summary(manifest, report, schema),
            "```",
            "",
            "## How decisions are explained",
            "",
            explanation_text(manifest),
            "",
            "## Intended use",
            "",
            "To be filled in by the model's owner.",
            "",
            "## Limits",
            "",
            CAVEAT,
            "",
        ]
    )


def explanation_text(manifest: Manifest) -> str:
    """The method in a sentence an auditor can check."""
    explainer = manifest.explainer
    if explainer.method is None:
        return f"Not at all yet: {explainer.reason}."
    return (
        f"Interventional Shapley values on the raw input columns, in {explainer.output_space}, "
        f"against {manifest.background.rows} background rows drawn with seed "
        f"{manifest.background.seed} ({manifest.background.digest})."
    )
