"""`explaind serve`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import (
    DatabaseUrl,
    DataDir,
    Encryption,
    JobTimeLimitSeconds,
    KeyEncryptionKeyFile,
    KeysDatabaseUrl,
    LeaseSeconds,
    PolicyPath,
    RedisUrl,
    RegistryDir,
    SecretFile,
    say,
)

SpoolMaxBytes = Annotated[
    int | None, typer.Option(help="Most bytes of records spooled while the store is away.")
]
DeadlineSeconds = Annotated[
    float | None, typer.Option(help="After how long a pending explanation counts as late.")
]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of /predict.")] = None,
    api_keys_file: Annotated[Path | None, typer.Option(help="API-keys file.")] = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    embedded_workers: Annotated[
        int | None, typer.Option(help="Workers to start when no --redis-url is given.")
    ] = None,
    secret_file: SecretFile = None,
    encryption: Encryption = None,
    keys_database_url: KeysDatabaseUrl = None,
    key_encryption_key_file: KeyEncryptionKeyFile = None,
    policy_file: PolicyPath = None,
    inline_budget_seconds: Annotated[
        float | None, typer.Option(help="Largest cost of an inline explanation.")
    ] = None,
    wait_seconds: Annotated[
        float | None, typer.Option(help="How long an answer waits for a queued explanation.")
    ] = None,
    explanation_deadline_seconds: DeadlineSeconds = None,
    lease_seconds: LeaseSeconds = None,
    job_time_limit_seconds: JobTimeLimitSeconds = None,
    max_queue: Annotated[int | None, typer.Option(help="Most unfinished explanations.")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Largest request body.")] = None,
    max_instances: Annotated[int | None, typer.Option(help="Most instances a request.")] = None,
    spool_max_bytes: SpoolMaxBytes = None,
    retention_days: Annotated[int | None, typer.Option(help="How long records are kept.")] = None,
    key_backup_days: Annotated[int | None, typer.Option(help="Age copies of keys reach.")] = None,
) -> None:
    """Serve every registered model until SIGTERM or Ctrl-C."""
    flags = dict(locals())  # options are named as the settings are
    from service.server import run_server
    from service.settings import Settings

    run_server(Settings.load(**flags), on_ready=lambda ready: say(f"serving on {ready.url}"))
