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
    from service.gate import Bounds, Depth, Finding, GateReport
    from service.settings import Settings

RowsFile = Annotated[
    Path | None,
    typer.Option("--rows", help="CSV, Parquet or JSON lines; without it, the last decisions."),
]
BoundsFile = Annotated[Path | None, typer.Option("--bounds", help="TOML file of bounds.")]
Bound = Annotated[
    list[str] | None, typer.Option("--bound", help="NAME=VALUE, over the file; repeatable.")
]


def gate(
    old: Annotated[str, typer.Argument(help="NAME:VERSION, NAME@serving, NAME@previous or NAME.")],
    new: Annotated[str, typer.Argument(help="Version that is to replace it, likewise.")],
    rows: RowsFile = None,
    labels: Annotated[
        str | None, typer.Option(help="Column of --rows that says what came out.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="Most rows to compare.")] = 2000,
    explained: Annotated[int, typer.Option(min=1, help="Most of them to explain.")] = 500,
    seconds: Annotated[
        float, typer.Option(min=1, help="Of explaining with a version that has to be called.")
    ] = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the rows drawn and moved.")] = 0,
    bounds_file: BoundsFile = None,
    bound: Bound = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the stored decisions.")] = "default",
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions on given or stored rows, and say whether the new one may serve.

    Exit codes: 0 it may, 1 a check blocks it, 2 the comparison could not be made.
    """
    from service.compiling import choose_kernel_cache
    from service.errors import CheckFailedError, CommandError, UsageError
    from service.logs import configure_logs
    from service.settings import Settings

    configure_logs(level="WARNING")
    try:
        settings = Settings.load(data_dir=data_dir, registry=registry, database_url=database_url)
        choose_kernel_cache(settings.data_dir)
        if labels is not None and rows is None:
            raise UsageError("--labels goes with --rows")
        from service.gate import Bounds, Depth

        bounds = Bounds.read(bounds_file, tuple(bound or ()))
        depth = Depth(explained_rows=explained, seconds=seconds, seed=seed)
        source = _Source(rows, labels, last, tenant)
        report = _compared(settings, (old, new), source, bounds, depth)
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


def _compared(
    settings: "Settings",
    names: tuple[str, str],
    source: _Source,
    bounds: "Bounds",
    depth: "Depth",
) -> "GateReport":
    from service.gate import Gate, named_version, rows_of_file, stored_rows
    from service.registry import Registry
    from service.storing import evidence_store

    registry = Registry(settings.registry)
    old, new = (named_version(registry, name) for name in names)
    if source.file is not None:
        rows = rows_of_file(source.file, most=source.most, seed=depth.seed, labels=source.labels)
    else:
        with evidence_store(settings) as store:
            rows = stored_rows(store, source.tenant, old.name, most=source.most)
    say(f"comparing {new.name}:{new.version} with {old.name}:{old.version} on {rows.origin}")
    return Gate(bounds=bounds, depth=depth).compare(old, new, rows)


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
