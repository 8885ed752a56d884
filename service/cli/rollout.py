"""`explaind rollout shadow / canary / status / stop / report`."""

from typing import TYPE_CHECKING, Annotated

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
    from pathlib import Path

    from service.registry.layout import Layout
    from service.registry.rollouts import Mode

app = typer.Typer(
    help="Try a version beside the serving one; running services follow.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(help="Version to try.")]
Share = Annotated[float, typer.Option(min=0.001, max=100, help="Percent of the requests.")]


def _layout(data_dir: "Path | None", registry: "Path | None") -> "Layout":
    from service.logs import configure_logs
    from service.registry.layout import Layout
    from service.settings import Settings

    configure_logs()
    return Layout(Settings.load(data_dir=data_dir, registry=registry).registry)


def _start(layout: "Layout", name: str, mode: "Mode", version: int, share: float) -> None:
    from service.registry.rollouts import Rollout, start_rollout

    start_rollout(layout, name, Rollout.begun(mode, version, share / 100))


@app.command()
def shadow(
    name: Name,
    version: Version,
    share: Share = 100.0,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
) -> None:
    """Have a version predict and explain what the serving one has answered; nobody sees it."""
    _start(_layout(data_dir, registry), name, "shadow", version, share)
    say(f"{name} version {version} shadows {share:g} % of the requests")


@app.command()
def canary(
    name: Name,
    version: Version,
    share: Annotated[
        float, typer.Option(min=0.001, max=50, help="Percent of the requests, at most half.")
    ] = 5.0,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
) -> None:
    """Have a version answer a share of the requests, until it is stopped or does worse."""
    _start(_layout(data_dir, registry), name, "canary", version, share)
    say(f"{name} version {version} answers {share:g} % of the requests")


@app.command()
def status(
    name: Name, data_dir: DataDir = None, registry: RegistryDir = None, as_json: AsJson = False
) -> None:
    """What is tried of a model, or was last, and why that ended."""
    from service.registry.rollouts import read_rollout

    found = read_rollout(_layout(data_dir, registry), name)
    if as_json:
        print_json(None if found is None else found.model_dump(mode="json"))
    elif found is None:
        print_text(f"{name}: nothing has been tried")
    else:
        end = "" if found.is_active else f", ended {found.ended_at:%F %T}: {found.reason}"
        what = f"{found.mode} of version {found.version}, {100 * found.share:g} %"
        print_text(f"{name}: {what}, since {found.started_at:%F %T} UTC{end}")


@app.command()
def stop(name: Name, data_dir: DataDir = None, registry: RegistryDir = None) -> None:
    """Have only the serving version answer again."""
    from service.errors import UnknownError
    from service.registry.rollouts import end_rollout

    if not end_rollout(_layout(data_dir, registry), name, "stopped by command"):
        raise UnknownError(f"nothing of {name!r} is being tried")
    say(f"{name}: stopped")


@app.command()
def report(
    name: Name,
    last: Annotated[int, typer.Option(min=1, help="Most requests to look at.")] = 2000,
    tenant: Annotated[str, typer.Option(help="Tenant of the records.")] = "default",
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """What the last rollout showed, as JSON: both versions' answers as they are stored."""
    from service.errors import UnknownError
    from service.gate.trials import trial_document
    from service.registry.rollouts import read_rollout
    from service.settings import Settings
    from service.storing import evidence_store

    found = read_rollout(_layout(data_dir, registry), name)
    if found is None:
        raise UnknownError(f"nothing of {name!r} has been tried")
    settings = Settings.load(data_dir=data_dir, registry=registry, database_url=database_url)
    with evidence_store(settings) as store:
        print_json(trial_document(store, tenant, name, found, most=last))
