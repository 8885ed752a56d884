"""`explaind worker`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import DataDir, RegistryDir


def worker(
    concurrency: Annotated[
        int, typer.Option(min=1, help="Explanations computed at once, each in a process.")
    ] = 1,
    redis_url: Annotated[
        str | None, typer.Option(help="Queue: Redis or Valkey, 7 or newer.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /metrics at this port.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of /metrics.")] = "127.0.0.1",
    metrics_socket: Annotated[
        Path | None, typer.Option(hidden=True, help="Where `serve` asks for the series.")
    ] = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: Annotated[str | None, typer.Option(help="Evidence database.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="32 bytes all replicas share.")] = None,
    lease_seconds: Annotated[
        float | None, typer.Option(help="Without a sign for so long, its jobs run again elsewhere.")
    ] = None,
    job_time_limit_seconds: Annotated[
        float | None, typer.Option(help="Longest time without progress before a job is killed.")
    ] = None,
) -> None:
    """Compute queued explanations until SIGTERM or Ctrl-C; jobs not finished are handed back."""
    from service.logs import configure_logs
    from service.settings import Settings
    from service.worker.explanations import ExplanationWork
    from service.worker.running import Options, run_worker

    settings = Settings.load(
        redis_url=redis_url,
        data_dir=data_dir,
        registry=registry,
        database_url=database_url,
        secret_file=secret_file,
        lease_seconds=lease_seconds,
        job_time_limit_seconds=job_time_limit_seconds,
    )
    configure_logs()
    options = Options(concurrency, metrics_host, metrics_port, metrics_socket)
    run_worker(settings, ExplanationWork.open, options)
