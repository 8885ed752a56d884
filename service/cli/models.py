"""`explaind models list / show / promote / rollback / disable / enable`."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, DataDir, RegistryDir, print_json, print_text, say

if TYPE_CHECKING:
    from pathlib import Path

    from service.registry import Registry
    from service.registry.layout import Layout

app = typer.Typer(help="The registry; a running service follows it.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the model.")]


def _registry(data_dir: "Path | None", registry: "Path | None") -> "Registry":
    from service.compiling import choose_kernel_cache
    from service.logs import configure_logs
    from service.settings import Settings

    configure_logs()
    settings = Settings.load(data_dir=data_dir, registry=registry)
    choose_kernel_cache(settings.data_dir)
    from service.registry import Registry

    return Registry(settings.registry)


@app.command("list")
def list_models(
    data_dir: DataDir = None, registry: RegistryDir = None, as_json: AsJson = False
) -> None:
    """Every name with its versions; * marks the one that serves."""
    layout = _registry(data_dir, registry).layout
    names = layout.names()
    found = [(n, _serving(layout, n), layout.versions(n), layout.is_disabled(n)) for n in names]
    if as_json:
        keys = ("name", "serving", "versions", "disabled")
        print_json([dict(zip(keys, facts, strict=True)) for facts in found])
        return
    for name, serving, versions, is_disabled in found:
        marked = " ".join(f"{v}*" if v == serving else f"{v}" for v in versions)
        notes = ("" if serving else "  (serving: unknown)") + ("  (disabled)" * is_disabled)
        print_text(f"{name}  {marked}{notes}")


def _serving(layout: "Layout", name: str) -> int | None:
    from service.registry.errors import DamagedVersionError

    try:
        return layout.serving(name)
    except DamagedVersionError as error:
        say(str(error))
        return None


@app.command()
def show(
    name: Name,
    version: Annotated[int | None, typer.Argument(help="Version (default: serving).")] = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """A version's card, or its manifest as JSON."""
    from service.errors import UnknownError
    from service.registry.layout import read_files

    layout = _registry(data_dir, registry).layout
    number = version if version is not None else layout.serving(name)
    if number is None:
        raise UnknownError(f"no model {name!r} is registered in {layout.root}")
    manifest, contents = read_files(layout.folder(name, number))
    if as_json:
        import orjson

        print_json(orjson.loads(manifest))
    else:
        print_text(contents["card.md"].decode())


@app.command()
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="Version that is to serve.")],
    data_dir: DataDir = None,
    registry: RegistryDir = None,
) -> None:
    """Let a version serve, after its digests and golden values are checked."""
    _registry(data_dir, registry).promote(name, version)
    say(f"{name} version {version} serves")


@app.command()
def rollback(name: Name, data_dir: DataDir = None, registry: RegistryDir = None) -> None:
    """Let the version that served before serve again."""
    model = _registry(data_dir, registry).rollback(name)
    say(f"{name} version {model.version} serves again")


@app.command()
def disable(name: Name, data_dir: DataDir = None, registry: RegistryDir = None) -> None:
    """Have no service predict with a model; its records stay, queued explanations complete."""
    _registry(data_dir, registry).layout.disable(name)
    say(f"{name} answers nobody until `explaind models enable {name}`")


@app.command()
def enable(name: Name, data_dir: DataDir = None, registry: RegistryDir = None) -> None:
    """Let a disabled model answer again."""
    _registry(data_dir, registry).layout.enable(name)
    say(f"{name} is served again")
