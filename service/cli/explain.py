"""`explaind explain`."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    PolicyPath,
    RedisUrl,
    RegistryDir,
    SecretFile,
    print_json,
    say,
)

if TYPE_CHECKING:
    from service.bulk import BulkReport, Order, Progress, Table
    from service.settings import Settings

BAR = 30
LINE_SECONDS = 5.0
INTERRUPTED = 130


def explain(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with the model's columns.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    chunk: Annotated[int, typer.Option(min=1, max=1000, help="Rows of one record.")] = 200,
    version: Annotated[int | None, typer.Option(help="Version (default: what serves).")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant the records belong to.")] = "default",
    subject_column: Annotated[
        str | None, typer.Option(help="Column that says whom a row is about.")
    ] = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    secret_file: SecretFile = None,
    policy_file: PolicyPath = None,
    as_json: AsJson = False,
) -> None:
    """Explain every row of a file; started again after an interruption, it goes on."""
    from service.bulk import Order
    from service.compiling import choose_kernel_cache
    from service.logs import configure_logs
    from service.settings import Settings

    settings = Settings.load(
        data_dir=data_dir,
        registry=registry,
        database_url=database_url,
        redis_url=redis_url,
        secret_file=secret_file,
        policy_file=policy_file,
    )
    configure_logs(level="WARNING")
    choose_kernel_cache(settings.data_dir)
    report = _run(settings, Order(name, file, out, version, chunk, tenant, subject_column))
    if as_json:
        print_json({"file": str(out), "rows": report.rows, "by_status": report.by_status})


def _run(settings: "Settings", order: "Order") -> "BulkReport":
    import asyncio

    from service.bulk import explain_table

    bar = Bar()
    try:
        report = asyncio.run(
            explain_table(settings, order, on_start=_say_what, on_progress=bar.show)
        )
    except KeyboardInterrupt:
        bar.end()
        say("stopped; the same command goes on from what is stored")
        raise typer.Exit(INTERRUPTED) from None
    bar.end()
    counts = ", ".join(f"{count} {status}" for status, count in sorted(report.by_status.items()))
    say(f"{order.out}: {report.rows} rows{': ' if counts else ''}{counts}")
    return report


def _say_what(table: "Table") -> None:
    say(f"explaining {table.path}, {table.digest}")
    if table.subject_column is not None:
        say(f"whom a row is about: {table.subject_column}")
    if table.ignored:
        say(f"not read, because the model lacks them: {', '.join(table.ignored)}")


@dataclass(slots=True)
class Bar:
    """Progress on stderr: a bar for people, a line every few seconds for files."""

    is_open: bool = False
    shown_at: float = 0.0

    def show(self, progress: "Progress") -> None:
        """Called after each chunk."""
        share = progress.rows_done / progress.rows if progress.rows else 1.0
        text = f"{progress.rows_done} of {progress.rows} rows"
        if sys.stderr.isatty():
            done = round(BAR * share)
            sys.stderr.write(f"\r[{'█' * done}{'·' * (BAR - done)}] {share:4.0%} {text}")
            sys.stderr.flush()
            self.is_open = True
        elif time.monotonic() - self.shown_at > LINE_SECONDS:
            say(f"{share:.0%}, {text}")
            self.shown_at = time.monotonic()

    def end(self) -> None:
        """Leave the bar's line."""
        if self.is_open:
            sys.stderr.write("\n")
            self.is_open = False
