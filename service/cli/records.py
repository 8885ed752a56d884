"""`explaind get`."""

from typing import Annotated

import typer

from service.cli.output import AsJson, DatabaseUrl, DataDir, print_text


def get(
    request_id: Annotated[str, typer.Argument(help="Request ID of a past prediction.")],
    tenant: Annotated[str, typer.Option(help="Tenant the record belongs to.")] = "default",
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,  # noqa: ARG001 - nothing to choose: the stored bytes are JSON
) -> None:
    """Print a stored record: JSON with or without --json, the same bytes the API serves."""
    from service.accesses import at_the_machine, note
    from service.errors import CheckFailedError, UnknownError
    from service.evidence import WithheldError
    from service.records import record_document
    from service.settings import Settings
    from service.storing import evidence_store

    settings = Settings.load(data_dir=data_dir, database_url=database_url)
    with evidence_store(settings) as store:
        try:
            stored = store.record(tenant, request_id)
        except WithheldError as error:
            raise CheckFailedError(str(error)) from None
        if stored is None:
            raise UnknownError(f"there is no record of request {request_id}")
        note(store, at_the_machine("read", tenant, request_id))
    print_text(record_document(stored).decode())
