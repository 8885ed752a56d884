"""`explaind review`."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    Day,
    PolicyPath,
    SecretFile,
    print_json,
    print_text,
    say,
    utc,
)

if TYPE_CHECKING:
    from service.settings import Settings


def review(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    since: Day = None,
    until: Day = None,
    tenant: Annotated[str, typer.Option(help="Tenant the records belong to.")] = "default",
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    policy_file: PolicyPath = None,
    as_json: AsJson = False,
) -> None:
    """Print explained requests drawn uniformly for human review, in the order of the draw."""
    from service.accesses import at_the_machine, note
    from service.records import review_document, review_period
    from service.secrets import Keyring, review_rank
    from service.settings import Settings
    from service.storing import evidence_store

    settings = Settings.load(
        data_dir=data_dir,
        database_url=database_url,
        secret_file=secret_file,
        policy_file=policy_file,
    )
    _check_name(settings, name)
    size = _size(settings, name)
    period = review_period(utc(since), utc(until))
    rank = review_rank(Keyring.open(settings.secret_file), tenant, name)
    with evidence_store(settings) as store:
        items = store.sample(tenant, name, period=period, size=size, rank=rank)
        note(store, at_the_machine("review", tenant, model=name, found=len(items)))
    if as_json:
        print_json(review_document(items, period=period, size=size))
        return
    say(f"{len(items)} of at most {size}, received from {period[0]:%F %T} to {period[1]:%F %T} UTC")
    for item in items:
        print_text(item.request_id)


def _check_name(settings: "Settings", name: str) -> None:
    from service.errors import UnknownError
    from service.registry.layout import Layout

    if name not in Layout(settings.registry).names():
        raise UnknownError(f"there is no model named {name!r}")


def _size(settings: "Settings", name: str) -> int:
    from service.policy import DEFAULT_REVIEW, PolicyFile

    path = settings.policy_file
    return DEFAULT_REVIEW if path is None else PolicyFile.read(path).review_size(name)
