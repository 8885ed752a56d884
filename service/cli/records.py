"""`explaind get`."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, DatabaseUrl, DataDir, print_text

if TYPE_CHECKING:
    from service.accesses import AccessKind
    from service.evidence import EvidenceStore, Record


def get(
    request_id: Annotated[str, typer.Argument(help="Request ID of a past prediction.")],
    tenant: Annotated[str, typer.Option(help="Tenant the record belongs to.")] = "default",
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,  # noqa: ARG001 - nothing to choose: the stored bytes are JSON
) -> None:
    """Print a stored record: JSON with or without --json, the same bytes the API serves."""
    from service.records import record_document
    from service.settings import Settings
    from service.storing import evidence_store

    settings = Settings.load(data_dir=data_dir, database_url=database_url)
    with evidence_store(settings) as store:
        found = shown(store, tenant, request_id, kind="read")
    print_text(record_document(found).decode())


def shown(store: "EvidenceStore", tenant: str, request_id: str, *, kind: "AccessKind") -> "Record":
    """A record as somebody at the machine may see it, once it is written down that he does.

    Raises UnknownError, CheckFailedError for one that is erased, expired or in quarantine,
    EvidenceError.
    """
    from datetime import UTC, datetime

    from service.accesses import at_the_machine, note
    from service.errors import CheckFailedError, UnknownError
    from service.evidence import WithheldError

    try:
        found = store.record(tenant, request_id)
    except WithheldError as error:
        raise CheckFailedError(str(error)) from None
    if found is None:
        raise UnknownError(f"there is no record of request {request_id}")
    if found.is_expired(datetime.now(UTC)):
        raise CheckFailedError(f"the record of {request_id} has expired")
    note(store, at_the_machine(kind, tenant, request_id))
    return found
