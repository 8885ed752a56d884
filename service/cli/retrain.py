"""`explaind retrain list / approve / dismiss / webhook-key`: what a person says of triggers."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    SecretFile,
    print_json,
    print_text,
    say,
)

if TYPE_CHECKING:
    from service.retraining.triggers import Trigger, Verdict

app = typer.Typer(
    help="Triggers to train a model again; nothing is trained here.", no_args_is_help=True
)
TriggerId = Annotated[str, typer.Argument(help="As `retrain list` shows it.")]
Note = Annotated[str, typer.Option(help="Why; kept for good, so nothing personal.")]


@app.command("list")
def list_triggers(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The youngest so many.")] = 50,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """The youngest triggers, with what was measured and decided."""
    from service.retraining.triggers import listed
    from service.settings import Settings
    from service.storing import evidence_store

    settings = Settings.load(data_dir=data_dir, database_url=database_url)
    with evidence_store(settings) as store:
        found = listed(store, limit)
    if as_json:
        print_json([_document(one) for one in found])
        return
    for one in found:
        reason = one.reason
        version = f"{reason.model}/{reason.version}"
        print_text(f"{one.trigger_id}  {one.state}  {version}  {reason.cause}  {_facts(one)}")
        if one.decided is not None:
            said = one.decided
            print_text(f"    {said.verdict} by {said.actor} at {said.at:%F %T} UTC: {said.note}")
    say(f"{sum(one.is_needed for one in found)} of {len(found)} stand and are not dismissed")


@app.command()
def approve(
    trigger_id: TriggerId,
    note: Note,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Say that the model is to be trained again; the webhook is told."""
    _decide(trigger_id, "approved", note, data_dir, database_url)


@app.command()
def dismiss(
    trigger_id: TriggerId,
    note: Note,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Say that it is not; nothing is raised again before the episode is over."""
    _decide(trigger_id, "dismissed", note, data_dir, database_url)


@app.command("webhook-key")
def webhook_key(data_dir: DataDir = None, secret_file: SecretFile = None) -> None:
    """Print the key that webhook calls are signed with, in hexadecimal, for the receiver."""
    from service.errors import UnknownError
    from service.secrets import WEBHOOK_KEYS, Keyring
    from service.settings import Settings

    path = Settings.load(data_dir=data_dir, secret_file=secret_file).secret_file
    if not path.exists():
        raise UnknownError(f"there is no secret file {path} yet")
    print_text(Keyring.open(path).key("", WEBHOOK_KEYS).hex())


def _decide(
    trigger_id: str,
    verdict: "Verdict",
    note: str,
    data_dir: Path | None,
    database_url: str | None,
) -> None:
    from service.accesses import person_at_the_machine
    from service.retraining.triggers import Decided, decide
    from service.settings import Settings
    from service.storing import evidence_store

    settings = Settings.load(data_dir=data_dir, database_url=database_url)
    said = Decided(verdict, person_at_the_machine(), note, datetime.now(UTC))
    with evidence_store(settings) as store:
        one = decide(store, trigger_id, said)
    print_text(f"{verdict}: {one.reason.model}/{one.reason.version}, {one.reason.cause}")


def _document(one: "Trigger") -> dict[str, object]:
    reason, said = one.reason, one.decided
    return {
        "trigger": one.trigger_id,
        "state": one.state,
        "model": reason.model,
        "version": reason.version,
        "cause": reason.cause,
        "facts": reason.facts,
        "raised_at": one.raised_at,
        "decided": said,
        "closed_at": one.closed_at,
    }


def _facts(one: "Trigger") -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in one.reason.facts.items()
    )
