"""`explaind worker`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import DataDir, RegistryDir


def worker(
    concurrency: Annotated[
        int, typer.Option(min=1, help="Explanations computed at once, each in a process.")
    ] = 1,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of this worker's /metrics.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of that port.")] = "127.0.0.1",
    metrics_socket: Annotated[Path | None, typer.Option(hidden=True)] = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: Annotated[str | None, typer.Option(help="Evidence database.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis or Valkey of the queue.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="32 bytes all replicas share.")] = None,
) -> None:
    """Compute queued explanations until SIGTERM or Ctrl-C; what is unfinished is handed back."""
    from service.settings import Settings
    from service.worker.recorded import RecordedWork
    from service.worker.running import Options, run_worker

    settings = Settings.load(
        data_dir=data_dir,
        registry=registry,
        database_url=database_url,
        redis_url=redis_url,
        secret_file=secret_file,
    )
    options = Options(concurrency, metrics_host, metrics_port, metrics_socket)
    run_worker(settings, RecordedWork.open, options)
