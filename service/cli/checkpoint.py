"""`explaind checkpoint`."""

from typing import Annotated

import typer

from service.cli.output import DatabaseUrl, DataDir, SecretFile, print_json, print_text


def checkpoint(
    log: Annotated[str, typer.Option(help="evidence, or access: the log of who read it.")] = (
        "evidence"
    ),
    key: Annotated[
        bool, typer.Option("--key", help="Print the public key that checkpoints verify under.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a log's last signed checkpoint. Whoever keeps it elsewhere can later prove that the
    log was changed or put back.
    """
    from service.accesses import ALL_TENANTS, at_the_machine, note
    from service.errors import UnknownError, UsageError
    from service.ledger import ACCESS, LOGS, Ledger
    from service.secrets import Keyring
    from service.settings import Settings
    from service.storing import evidence_store

    if log not in LOGS:
        raise UsageError(f"logs are {', '.join(LOGS)}")
    settings = Settings.load(data_dir=data_dir, database_url=database_url, secret_file=secret_file)
    keyring = Keyring.open(settings.secret_file)
    with evidence_store(settings) as store:
        ledger = Ledger(store, keyring)
        vkey, signed = ledger.vkey(log), ledger.checkpoint(log)
        if log == ACCESS.name and signed is not None and not key:
            note(store, at_the_machine("checkpoint", ALL_TENANTS, size=signed.size))
    if signed is None and not key:
        raise UnknownError(f"nothing of the log {log} has been signed yet")
    if as_json:
        print_json({"log": log, "vkey": vkey, "checkpoint": signed and signed.note})
    else:
        print_text(vkey if key or signed is None else signed.note.rstrip("\n"))
