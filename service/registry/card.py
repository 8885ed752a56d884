"""What a person reads of a version after its registration, line by line."""

from typing import TYPE_CHECKING

from schemas import Column, ModelSchema
from service.registry.manifest import (
    AllowedColumn,
    CostEntry,
    ExplainerEntry,
    Manifest,
    ProofEntry,
)

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
        f"  explains    {explains_line(explainer)}",
        f"  background  {manifest.background.rows} rows, seed {manifest.background.seed}",
        f"  cost        {cost_line(cost)}",
    ]
    if explainer.method:
        lines.append(f"  proven      {proven_line(manifest.proof)}")
    if report.strongest:
        lines.append("  strongest   " + strongest_line(report.strongest))
    if report.ignored_columns:
        lines.append("  not used    " + ", ".join(report.ignored_columns))
    lines += [f"  warning     {text}" for text in report.warnings]
    lines += [f"  allowed     {allowed_line(entry)}" for entry in manifest.allowed_columns]
    hidden = {entry.column for entry in manifest.allowed_columns if entry.findings}
    columns = (column_line(c, is_shown=c.name not in hidden) for c in schema.columns)
    return "\n".join([*lines, "  columns", *(f"    {line}" for line in columns)])


def explains_line(explainer: ExplainerEntry) -> str:
    """Method, unit and whether the values are exact."""
    if explainer.method is None:
        return f"no: {explainer.reason}"
    how = {
        "permutation": ", estimated from permutations, with standard errors, by a worker",
        "exact": ", from all coalitions of columns, by a worker",
    }.get(explainer.method, "")
    why = f" ({explainer.reason})" if explainer.reason else ""
    return f"{explainer.method} in {explainer.output_space}{how}{why}"


def proven_line(proven: ProofEntry) -> str:
    """What was compared with what, and the worst that was seen."""
    if proven.oracle_z is not None:
        return (
            f"batches within {proven.parse_gap:.1e} of single rows, values within "
            f"{proven.oracle_z:.1f} standard errors of brute force through the model"
        )
    return (
        f"predictions within {proven.parse_gap:.1e}, values within {proven.oracle_gap:.1e} of "
        "brute force through the model"
    )


def cost_line(cost: CostEntry) -> str:
    """Calibrated time a row, and how often a model that is called is called for it."""
    line = f"predict {_duration(cost.predict_row)}, explain {_duration(cost.explain_row)} a row"
    if cost.evaluate_rows_per_second is None:
        return line
    return (
        f"{line}: {cost.explain_model_rows:,} model rows, at most "
        f"{cost.explain_model_rows_at_most:,}, of {cost.evaluate_rows_per_second:,.0f} a second"
    )


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 0.1 else f"{seconds:.2g} s"


def strongest_line(strongest: tuple[tuple[str, float], ...]) -> str:
    """Columns by share of all attribution over the background."""
    return ", ".join(f"{name} {share:.0%}" for name, share in strongest[:5])


def allowed_line(entry: AllowedColumn) -> str:
    """A column that was registered although it may hold personal data, and what it holds."""
    kinds = ", ".join(f"{entity} in {count}" for entity, count in entry.findings.items())
    return f"{entry.column}: {entry.values} distinct values, {kinds or 'no personal data found'}"


def column_line(column: Column, *, is_shown: bool = True) -> str:
    """One column as registration understood it; its levels unless they are personal data."""
    text = f"{column.name}: {column.kind}"
    if column.levels is not None and not is_shown:
        text += f" ({len(column.levels)} levels, not shown)"
    elif column.levels is not None:
        shown = ", ".join(map(str, column.levels[:SHOWN_LEVELS]))
        more = len(column.levels) - SHOWN_LEVELS
        text += f" ({shown}{f', {more} more' if more > 0 else ''})"
    return text + (", may be missing" if column.nullable else "")
