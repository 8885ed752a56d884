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
    )
    run_server(settings, on_ready=lambda ready: say(f"serving on {ready.url}"))
