"""`explaind worker`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import (
    DatabaseUrl,
    DataDir,
    JobNiceness,
    JobTimeLimitSeconds,
    KeyEncryptionKeyFile,
    KeysDatabaseUrl,
    LeaseSeconds,
    RedisUrl,
    RegistryDir,
    SecretFile,
)


def worker(
    concurrency: Annotated[
        int, typer.Option(min=1, help="Explanations computed at once, each in a process.")
    ] = 1,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /metrics at this port.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of /metrics.")] = "127.0.0.1",
    metrics_socket: Annotated[Path | None, typer.Option(hidden=True)] = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    keys_database_url: KeysDatabaseUrl = None,
    key_encryption_key_file: KeyEncryptionKeyFile = None,
    lease_seconds: LeaseSeconds = None,
    job_time_limit_seconds: JobTimeLimitSeconds = None,
    job_niceness: JobNiceness = None,
) -> None:
    """Compute queued explanations until SIGTERM or Ctrl-C; jobs not finished are handed back."""
    flags = dict(locals())  # but for the first four, options are named as the settings are
    from service.logs import configure_logs
    from service.settings import Settings
    from service.worker.explanations import ExplanationWork
    from service.worker.running import Options, run_worker

    for name in ("concurrency", "metrics_port", "metrics_host", "metrics_socket"):
        del flags[name]
    configure_logs()
    options = Options(concurrency, metrics_host, metrics_port, metrics_socket)
    run_worker(Settings.load(**flags), ExplanationWork.open, options)
