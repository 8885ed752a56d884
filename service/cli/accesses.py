"""`explaind accesses`: who has looked."""

from typing import Annotated

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    Day,
    print_json,
    print_text,
    utc,
)

SHOWN = ("at", "tenant", "principal", "event_type", "request_id")


def accesses(
    since: Day = None,
    until: Day = None,
    principal: Annotated[str | None, typer.Option(help="Who looked.")] = None,
    request_id: Annotated[str | None, typer.Option(help="At what.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the access log, oldest first: reads of others' records, exports, erasures, refusals."""
    from service.accesses import AccessFilter, listed
    from service.settings import Settings
    from service.storing import evidence_store

    matching = AccessFilter(
        tenant=tenant,
        principal=principal,
        request_id=request_id,
        since=utc(since),
        until=utc(until),
    )

    with evidence_store(Settings.load(data_dir=data_dir, database_url=database_url)) as store:
        found = listed(store, matching)
        if as_json:
            print_json(list(found))
            return
        for header in found:
            print_text("  ".join(str(header[name] or "-") for name in SHOWN))
