"""`explaind export` and `explaind verify`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    Day,
    SecretFile,
    print_json,
    print_text,
    say,
    utc,
)

if TYPE_CHECKING:
    from service.bundles import Exported, Selection
    from service.evidence import EvidenceStore
    from service.ledger import Ledger
    from service.settings import Settings

Witness = Annotated[
    Path | None, typer.Option(help="A checkpoint that somebody outside has kept, in a file.")
]


Out = Annotated[Path, typer.Option(help="The bundle; compressed if it ends in .gz.")]
Model = Annotated[str | None, typer.Option(help="Requests to this model.")]
RequestIds = Annotated[
    list[str] | None, typer.Option(help="This request, and what explains it again; repeatable.")
]
Subject = Annotated[str | None, typer.Option(help="All requests about this subject.")]
Tenant = Annotated[str | None, typer.Option(help="This tenant (with --subject: `default`).")]
LogName = Annotated[str, typer.Option(help="evidence, or access: who read and exported.")]
Force = Annotated[bool, typer.Option(help="Replace a bundle that is there.")]


def export(
    out: Out,
    since: Day = None,
    until: Day = None,
    model: Model = None,
    request_id: RequestIds = None,
    subject: Subject = None,
    tenant: Tenant = None,
    log: LogName = "evidence",
    witness: Witness = None,
    force: Force = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a log, or what is selected of it, into one file that proves itself.

    It holds personal data: its mode is 0600.
    """
    from service.bundles import Exporter, Selection
    from service.settings import Settings

    settings = Settings.load(data_dir=data_dir, database_url=database_url, secret_file=secret_file)
    _check_log(log, is_by_content=bool(model or subject))
    note = None if witness is None else _text(witness)
    with _opened(settings) as (store, ledger):
        selection = Selection(
            since=utc(since),
            until=utc(until),
            model=model,
            request_ids=tuple(request_id or ()),
            subject=None if subject is None else _keyed(settings, tenant, subject),
            tenant=tenant if subject is None else _owner(tenant),
        )
        _note(store, selection, log)
        exporter = Exporter(store=store, ledger=ledger, progress=_progress)
        exported = exporter.export(out, selection, log=log, witness=note, force=force)
    _print_exported(exported, log, as_json=as_json)


def _note(store: "EvidenceStore", selection: "Selection", log: str) -> None:
    """Into the access log, before anything is written; whose records they are is not said."""
    from service.accesses import ALL_TENANTS, at_the_machine, note

    asked = {
        "log": log,
        "model": selection.model,
        "since": selection.since,
        "until": selection.until,
        "request_ids": len(selection.request_ids),
        "by_subject": selection.subject is not None,
    }
    note(store, at_the_machine("export", selection.tenant or ALL_TENANTS, asked=asked))


def _check_log(log: str, *, is_by_content: bool) -> None:
    from service.errors import UsageError
    from service.ledger import LOGS

    if log not in LOGS:
        raise UsageError(f"logs are {', '.join(LOGS)}")
    if log != "evidence" and is_by_content:
        raise UsageError("--model and --subject select from the log evidence only")


def _owner(tenant: str | None) -> str:
    return tenant or "default"


def _keyed(settings: "Settings", tenant: str | None, subject: str) -> str:
    from service.secrets import Keyring

    keyring = Keyring.open(settings.secret_file)
    return keyring.digest(_owner(tenant), "subject", subject.encode())


def _print_exported(exported: "Exported", log: str, *, as_json: bool) -> None:
    if as_json:
        document = {
            "bundle": str(exported.path),
            "entries": exported.count,
            "left_out": exported.left_out,
            "size": exported.checkpoint.size,
            "checkpoint": exported.checkpoint.note,
        }
        print_json(document)
        return
    if exported.left_out:
        say(f"{exported.left_out} more are stored, but under no signed checkpoint yet: left out")
    of_log = f"{exported.count} of {exported.checkpoint.size} entries of the log {log}"
    print_text(f"{exported.path}: {of_log}")


BundleOrProof = Annotated[
    Path | None, typer.Argument(help="A bundle or a proof; without one, the evidence database.")
]
VerifierKey = Annotated[str | None, typer.Option(help="The verifier key the logs must have.")]

FormerKeys = Annotated[
    list[str] | None,
    typer.Option(help="A verifier key the logs had before; repeatable. Only for the database."),
]


def verify(
    bundle: BundleOrProof = None,
    witness: Witness = None,
    key: VerifierKey = None,
    former_key: FormerKeys = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle with the public key alone, or all evidence where it is stored."""
    from service.settings import Settings
    from service.verify import main

    if bundle is not None:
        options = [*(["--json"] if as_json else [])]
        options += [] if witness is None else ["--witness", str(witness)]
        options += [] if key is None else ["--key", key]
        raise typer.Exit(main([str(bundle), *options]))
    settings = Settings.load(data_dir=data_dir, database_url=database_url, secret_file=secret_file)
    from service.bundles.inspecting import Inspector

    note = None if witness is None else _text(witness)
    with _opened(settings) as (store, ledger):
        verdict = Inspector(store, ledger, settings.data_dir, key, former_key or ()).inspect(note)
    _print_verdict(verdict, as_json=as_json)
    raise typer.Exit(0 if str(verdict["verdict"]).startswith("consistent") else 1)


def _print_verdict(verdict: dict[str, object], *, as_json: bool) -> None:
    from service.verify import text_of

    if as_json:
        print_json(verdict)
        return
    logs = verdict["logs"]
    assert isinstance(logs, dict)
    # Each in a copy, because `text_of` takes apart what it is given.
    texts = [text_of({name: said for name, said in verdict.items() if name != "logs"})]
    for log, found in logs.items():
        texts.append(f"{log}: " + text_of(dict(found)).replace("\n", "\n  "))
    print_text("\n".join(texts))


@contextmanager
def _opened(settings: "Settings") -> Iterator[tuple["EvidenceStore", "Ledger"]]:
    """Store and ledger as they are: nothing is made, and no dropped trigger laid again."""
    from service.errors import CheckFailedError, UnavailableError
    from service.evidence import EvidenceError
    from service.evidence.looking import open_as_is
    from service.ledger import Ledger, LogMismatchError
    from service.secrets import Keyring
    from service.storing import existing_keys

    if not settings.secret_file.exists():
        raise UnavailableError(f"there is no secret file {settings.secret_file}")
    try:
        with (
            existing_keys(settings) as keys,
            open_as_is(settings.database_url, keys=keys) as store,
        ):
            yield store, Ledger(store, Keyring.open(settings.secret_file))
    except LogMismatchError as error:
        raise CheckFailedError(f"{error}: run explaind verify") from error
    except EvidenceError as error:
        raise UnavailableError(str(error)) from error


def _progress(written: int, count: int) -> None:
    if written % 10_000 < 500 and written >= 10_000:
        say(f"{written} of {count} entries")


def _text(path: Path) -> str:
    from service.errors import InvalidInputError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: {error}") from error
