"""`explaind keys create / list / revoke`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import AsJson, print_json, print_text, say

app = typer.Typer(
    help="API keys; without a keys file only loopback is served.", no_args_is_help=True
)
KeysFile = Annotated[
    Path | None, typer.Option("--file", help="Keys file (default EXPLAIND_API_KEYS_FILE).")
]
Name = Annotated[str, typer.Argument(help="Principal, as it appears in records.")]


def _path(file: Path | None) -> Path:
    from service.errors import UsageError
    from service.settings import Settings

    path = Settings.load(api_keys_file=file).api_keys_file
    if path is None:
        raise UsageError("name the keys file with --file or EXPLAIND_API_KEYS_FILE")
    return path


@app.command()
def create(
    name: Name,
    scope: Annotated[list[str], typer.Option(help="predict, explain, audit, metrics or admin.")],
    tenant: Annotated[str, typer.Option(help="Tenant whose records the key reaches.")] = "default",
    file: KeysFile = None,
) -> None:
    """Make a key and print it, once: it is stored hashed."""
    from service.auth import SCOPES, KeyFile
    from service.errors import UsageError

    path = _path(file)
    scopes = [known for known in SCOPES if known in scope]
    if len(scopes) != len(set(scope)):
        raise UsageError(f"scopes are {', '.join(SCOPES)}")
    keys = KeyFile.read(path) if path.exists() else KeyFile()
    keys, key = keys.with_key(name, scopes, tenant)
    keys.write(path)
    say(f"key of {name} ({', '.join(scopes)}) for tenant {tenant}; it is not shown again:")
    print_text(key)


@app.command("list")
def list_keys(file: KeysFile = None, as_json: AsJson = False) -> None:
    """Every key, without the keys themselves."""
    from service.auth import KeyFile

    entries = KeyFile.read(_path(file)).keys
    if as_json:
        print_json([entry.model_dump(mode="json", exclude={"sha256"}) for entry in entries])
        return
    for entry in entries:
        state = "revoked" if entry.revoked_at else "in force"
        print_text(f"{entry.name}  {entry.tenant}  {','.join(entry.scopes)}  {state}")


@app.command()
def revoke(name: Name, file: KeysFile = None) -> None:
    """A running service refuses the key within a second."""
    from service.auth import KeyFile

    path = _path(file)
    KeyFile.read(path).without(name).write(path)
    say(f"the key of {name} is revoked")
