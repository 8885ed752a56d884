"""`explaind serve`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import DataDir, RegistryDir, say


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of /predict.")] = None,
    api_keys_file: Annotated[Path | None, typer.Option(help="API-keys file.")] = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: Annotated[str | None, typer.Option(help="Evidence database.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="32 bytes all replicas share.")] = None,
    policy_file: Annotated[
        Path | None, typer.Option(help="What is explained unasked, what never.")
    ] = None,
    inline_budget_seconds: Annotated[
        float | None, typer.Option(help="Largest cost of an inline explanation.")
    ] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Largest request body.")] = None,
    max_instances: Annotated[int | None, typer.Option(help="Most instances a request.")] = None,
    retention_days: Annotated[int | None, typer.Option(help="How long records are kept.")] = None,
) -> None:
    """Serve every registered model until SIGTERM or Ctrl-C."""
    from service.server import run_server
    from service.settings import Settings

    settings = Settings.load(
        host=host,
        port=port,
        model=model,
        api_keys_file=api_keys_file,
        data_dir=data_dir,
        registry=registry,
        database_url=database_url,
        secret_file=secret_file,
        policy_file=policy_file,
        inline_budget_seconds=inline_budget_seconds,
        max_body_bytes=max_body_bytes,
        max_instances=max_instances,
        retention_days=retention_days,
    )
    run_server(settings, on_ready=lambda ready: say(f"serving on {ready.url}"))
