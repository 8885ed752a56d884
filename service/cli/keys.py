"""`explaind keys create / list / rotate / revoke`, of API keys, and `rewrap`, of payloads' keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, DatabaseUrl, DataDir, print_json, print_text, say

if TYPE_CHECKING:
    from service.auth import KeyEntry
    from service.keystore import KekSource

app = typer.Typer(
    help="API keys; without a keys file only loopback is served.", no_args_is_help=True
)
KeysFile = Annotated[
    Path | None, typer.Option("--file", help="Keys file (default EXPLAIND_API_KEYS_FILE).")
]
Scopes = Annotated[
    list[str], typer.Option(help="predict, explain, recourse, audit, metrics or admin.")
]
RecoursePerMinute = Annotated[
    int | None, typer.Option(min=0, help="Counterfactuals a minute; 0: no limit.")
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
    scope: Scopes,
    tenant: Annotated[
        list[str] | None,
        typer.Option(help="Tenants whose records the key reaches; it writes to the first."),
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="Roles POLICY_FILE masks columns for.")
    ] = None,
    explain_per_minute: Annotated[
        int | None, typer.Option(min=0, help="Instances explained a minute; 0: no limit.")
    ] = None,
    predict_per_minute: Annotated[
        int | None, typer.Option(min=0, help="Instances predicted a minute; 0: no limit.")
    ] = None,
    recourse_per_minute: RecoursePerMinute = None,
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
    keys, key = keys.with_key(
        name,
        scopes,
        *(tenant or ()),
        roles=role or (),
        explain_per_minute=explain_per_minute,
        predict_per_minute=predict_per_minute,
        recourse_per_minute=recourse_per_minute,
    )
    keys.write(path)
    _print_new(keys.keys[-1], key)


def _print_new(entry: "KeyEntry", key: str) -> None:
    scopes, tenants = ", ".join(entry.scopes), ", ".join(entry.tenants)
    say(f"key of {entry.name} ({scopes}) for {tenants}; it is not shown again:")
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
        lists = (entry.tenants, entry.scopes, entry.roles)
        words = [entry.name, *(",".join(names) or "-" for names in lists), _state(entry)]
        print_text("  ".join(words))


def _state(entry: "KeyEntry") -> str:
    from datetime import UTC, datetime

    if entry.is_in_force(datetime.now(UTC)):
        until = entry.valid_until
        return "in force" if until is None else f"in force until {until:%Y-%m-%d %H:%M} UTC"
    return "revoked" if entry.revoked_at else "ended"


@app.command()
def rotate(
    name: Name,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=8784, help="How long the key in force still works.")
    ] = 24.0,
    file: KeysFile = None,
) -> None:
    """Make another key for the same name and print it, once; the old one ends by itself."""
    from datetime import timedelta

    from service.auth import KeyFile

    path = _path(file)
    keys, key = KeyFile.read(path).rotated(name, timedelta(hours=overlap_hours))
    keys.write(path)
    say(f"new key of {name}; the old one works {overlap_hours:g} h more; it is not shown again:")
    print_text(key)


@app.command()
def revoke(name: Name, file: KeysFile = None) -> None:
    """A running service refuses the key within a second."""
    from service.auth import KeyFile

    path = _path(file)
    KeyFile.read(path).without(name).write(path)
    say(f"no key of {name} works any more")


@app.command()
def rewrap(
    new_key_file: Annotated[
        Path, typer.Option(help="The new key-encryption key, 32 bytes; made if it is not there.")
    ],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Wrap the keys of all payloads anew, under another key-encryption key. Stop services and
    workers before; called again after an interruption, it goes on.
    """
    from service.errors import CheckFailedError, UnavailableError, UnknownError
    from service.keystore import KekSource, KeyStore, KeyStoreError
    from service.keystore import rewrap as wrap_anew
    from service.settings import Settings
    from service.storing import kek_source

    settings = Settings.load(data_dir=data_dir, database_url=database_url)
    source = kek_source(settings)
    try:
        if not KeyStore.is_there(settings.keys_database_url):
            raise UnknownError("there is no key store yet")
        old = source.find(may_create=False)
        new = KekSource(new_key_file).find(may_create=True)
        done = wrap_anew(settings.keys_database_url, old, new, progress=_say_progress)
    except KeyStoreError as error:
        raise UnavailableError(f"key store: {error}") from None
    if as_json:
        print_json({"wrapped": done.wrapped, "damaged": done.damaged})
    step = _next_step(new_key_file, source, is_finished=done.is_forgotten)
    say(f"{done.wrapped} keys wrapped anew; {step}")
    if done.damaged or not done.is_forgotten:
        told = [f"{done.damaged} keys open under neither key"] * bool(done.damaged)
        told += ["files still hold what was wrapped before"] * (not done.is_forgotten)
        raise CheckFailedError("; ".join(told))


def _next_step(new_key_file: Path, source: "KekSource", *, is_finished: bool) -> str:
    from service.settings import KEY_ENCRYPTION_KEY

    if not is_finished:
        return "call it again before you move the file"
    if source.text is None:
        return f"now put {new_key_file} in the place of the {source.name}"
    return f"now set {KEY_ENCRYPTION_KEY} to the output of: base64 -w0 {new_key_file}"


def _say_progress(done: int, total: int) -> None:
    if done == total or not done % 100_000:
        say(f"{done} of {total} keys")
