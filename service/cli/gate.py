"""`explaind gate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    RegistryDir,
    print_json,
    print_text,
    say,
)

if TYPE_CHECKING:
    from service.gate import Finding, GateReport, Rows
    from service.settings import Settings

RowsFile = Annotated[
    Path | None,
    typer.Option("--rows", help="CSV, Parquet or JSON lines; without it, the last decisions."),
]
BoundsFile = Annotated[Path | None, typer.Option("--bounds", help="TOML file of bounds.")]
Bound = Annotated[
    list[str] | None, typer.Option("--bound", help="NAME=VALUE, over the file; repeatable.")
]


Old = Annotated[str, typer.Argument(help="NAME:VERSION, NAME@serving, NAME@previous or NAME.")]
New = Annotated[str, typer.Argument(help="Version that is to replace it, likewise.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of --rows with what came out.")]
Last = Annotated[int, typer.Option(min=1, help="Most rows to compare.")]
Explained = Annotated[int, typer.Option(min=1, help="Most of them to explain.")]
Seconds = Annotated[
    float, typer.Option(min=1, help="Of explaining with a version that has to be called.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the rows drawn and moved.")]
RequireCard = Annotated[
    bool, typer.Option("--require-card", help="Block where nobody has begun the model's card.")
]
Tenant = Annotated[str, typer.Option(help="Tenant of the stored decisions.")]


def gate(
    old: Old,
    new: New,
    rows: RowsFile = None,
    labels: LabelColumn = None,
    last: Last = 2000,
    explained: Explained = 500,
    seconds: Seconds = 120.0,
    seed: Seed = 0,
    bounds_file: BoundsFile = None,
    bound: Bound = None,
    require_card: RequireCard = False,
    tenant: Tenant = "default",
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions on given or stored rows, and say whether the new one may serve.

    Exit codes: 0 it may, 1 a check blocks it, 2 the comparison could not be made.
    """
    from service.errors import CheckFailedError, CommandError, UsageError
    from service.logs import configure_logs
    from service.settings import Settings

    configure_logs(level="WARNING")
    try:
        settings = Settings.load(data_dir=data_dir, registry=registry, database_url=database_url)
        bounds = (*(bound or ()), *(("require_card=true",) if require_card else ()))
        source = _Source(rows, labels, last, tenant, bounds, bounds_file)
        report = _compared(settings, (old, new), source, (explained, seconds, seed))
    except CommandError as error:
        raise UsageError(str(error)) from error
    _show(report, as_json=as_json)
    if report.blocks:
        names = ", ".join(finding.check for finding in report.blocks)
        raise CheckFailedError(f"{report.new} is blocked: {names}")


class _Source(NamedTuple):
    file: Path | None
    labels: str | None
    most: int
    tenant: str
    bounds: tuple[str, ...]
    bounds_file: Path | None


def _compared(
    settings: "Settings",
    names: tuple[str, str],
    source: _Source,
    explaining: tuple[int, float, int],
) -> "GateReport":
    from service.compiling import choose_kernel_cache
    from service.errors import UsageError

    if source.labels is not None and source.file is None:
        raise UsageError("--labels goes with --rows")
    choose_kernel_cache(settings.data_dir)
    from service.gate import Bounds, Depth, Gate, named_version
    from service.registry import Registry

    bounds = Bounds.read(source.bounds_file, source.bounds)
    rows_at_most, seconds, seed = explaining
    registry = Registry(settings.registry)
    old, new = (named_version(registry, name) for name in names)
    rows = _rows(settings, source, old.name, seed)
    say(f"comparing {new.name}:{new.version} with {old.name}:{old.version} on {rows.origin}")
    depth = Depth(explained_rows=rows_at_most, seconds=seconds, seed=seed)
    return Gate(bounds=bounds, depth=depth, layout=registry.layout).compare(old, new, rows)


def _rows(settings: "Settings", source: _Source, model: str, seed: int) -> "Rows":
    from service.gate import rows_of_file, stored_rows
    from service.storing import evidence_store

    if source.file is not None:
        return rows_of_file(source.file, most=source.most, seed=seed, labels=source.labels)
    with evidence_store(settings) as store:
        return stored_rows(store, source.tenant, model, most=source.most)


HEAD = ("check", "value", "bound", "verdict", "at", "detail")


def _show(report: "GateReport", *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
        return
    lines = [HEAD, *map(_cells, report.findings)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print_text("  ".join(cells).rstrip())
    verdict = "BLOCKED" if report.blocks else "passes"
    print_text(f"{report.new} {verdict}: {report.rows} rows compared, {report.explained} explained")


def _cells(finding: "Finding") -> tuple[str, ...]:
    return (
        finding.check,
        "" if finding.value is None else f"{finding.value:.4g}",
        "" if finding.bound is None else f"{finding.bound:.4g}",
        finding.verdict,
        finding.at,
        finding.detail,
    )
