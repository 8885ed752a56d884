"""`explaind cost`."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    print_json,
    print_text,
    say,
    utc,
)

if TYPE_CHECKING:
    from service.costs import CostReport

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
HEADS = ("tenant", "model", "method", "lane")
NUMBERS = ("explanations", "failed", "instances", "cpu_seconds", "model_evaluations")


def cost(
    since: Annotated[
        datetime | None, typer.Option("--from", formats=TIMES, help="Received from then on, UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", formats=TIMES, help="Received before then, UTC.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="One tenant (default: all).")] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print what stored explanations cost, by tenant, model, method and lane."""
    from service.accesses import ALL_TENANTS, at_the_machine, note
    from service.costs import cost_report
    from service.settings import Settings
    from service.storing import evidence_store

    settings = Settings.load(data_dir=data_dir, database_url=database_url)
    start, end = utc(since), utc(until)
    with evidence_store(settings) as store:
        note(store, at_the_machine("cost", tenant or ALL_TENANTS, since=start, until=end))
        report = cost_report(store, tenant=tenant, since=start, until=end)
    if as_json:
        print_json(report.document())
    else:
        _print(report)


def _print(report: "CostReport") -> None:
    document = report.document()
    rows = [[*HEADS, *NUMBERS]]
    for line in document["costs"]:
        rows.append([_text(line[name]) for name in rows[0]])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        names = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)][: len(HEADS)]
        numbers = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print_text("  ".join([*names, *numbers[len(HEADS) :]]))
    for line in document["unknown"]:
        say(f"{line['records']} {line['reason']} records of {line['tenant']} are not in it")


def _text(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
