"""`explaind erase / hold / release / holds / quarantine / purge`: what becomes of records."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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
from service.cli.selecting import Selection

if TYPE_CHECKING:
    from service.accesses import AccessKind
    from service.disposal import Erasing, Holding, Order
    from service.evidence import EvidenceStore, Hold
    from service.settings import Settings

CODE = "A code such as a case number: kept for good, so nothing personal."
Reason = Annotated[str, typer.Option(help=CODE)]
Requests = Annotated[list[str] | None, typer.Option("--request-id", help="May be repeated.")]
Subject = Annotated[str | None, typer.Option(help="Whom they are about, as the client named it.")]
Model = Annotated[str | None, typer.Option(help="All of this model, from --since to --until.")]
Tenant = Annotated[str, typer.Option(help="Tenant the records belong to.")]
MOST_SHOWN = 20


def erase(
    subject: Subject = None,
    request_id: Requests = None,
    tenant: Tenant = "default",
    reason: Reason = "requested",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Destroy what records say of a subject, or whole records with those that explain them again.

    Nobody can undo it. What is under a hold stays, and makes the exit code 1. Interrupted, it goes
    on when called again; the service may run meanwhile.
    """
    from service import disposal
    from service.errors import CheckFailedError
    from service.storing import evidence_store

    settings = _settings(data_dir, database_url, secret_file)
    selection = Selection(settings, tenant, tuple(request_id or ()), subject)
    order = _order(reason)

    with evidence_store(settings) as store:
        keys = list(selection.keys(store))
        found = disposal.survey(store, keys)
        if yes:
            _note(store, "erasure", selection, order, state="begun", **_counts(found))
            what = disposal.Destruction("erasure", order, subject=selection.keyed_subject or "")
            found = disposal.erase(store, keys, what, progress=_progress("erased"))
            is_forgotten = disposal.forget(store)
            done = {**_counts(found), "held_ids": [each for _, each in found.held[:MOST_SHOWN]]}
            _note(store, "erasure", selection, order, state="ended", **done)
    _show_erasing(found, is_done=yes, as_json=as_json, settings=settings)
    if yes and not is_forgotten:
        raise CheckFailedError("readers kept a database's log from being cut: run it again")
    if found.held:
        raise CheckFailedError(f"{len(found.held)} records are under a hold and stay")


def hold(
    reason: Reason,
    request_id: Requests = None,
    subject: Subject = None,
    model: Model = None,
    since: Day = None,
    until: Day = None,
    tenant: Tenant = "default",
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Keep records from being erased or purged, those that explain them again too.

    It is about what is stored by now; run it again for what came later.
    """
    settings = _settings(data_dir, database_url, secret_file)
    period = utc(since), utc(until)
    selection = Selection(settings, tenant, tuple(request_id or ()), subject, model, period)
    _hold(selection, _order(reason), "hold", as_json=as_json)


def quarantine(
    request_id: Annotated[list[str], typer.Option(help="May be repeated.")],
    reason: Reason,
    tenant: Tenant = "default",
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Keep records, and keep everybody from reading them, until `release --quarantine`."""
    selection = Selection(_settings(data_dir, database_url), tenant, tuple(request_id))
    _hold(selection, _order(reason), "quarantine", as_json=as_json)


def release(
    reason: Reason,
    request_id: Requests = None,
    subject: Subject = None,
    model: Model = None,
    since: Day = None,
    until: Day = None,
    tenant: Tenant = "default",
    placed_for: Annotated[
        str | None, typer.Option("--hold", help="Only from holds of this reason (default: all).")
    ] = None,
    from_quarantine: Annotated[
        bool, typer.Option("--quarantine", help="From quarantine instead of holds.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """End holds, or quarantine."""
    from service import disposal
    from service.storing import evidence_store

    settings = _settings(data_dir, database_url, secret_file)
    period = utc(since), utc(until)
    selection = Selection(settings, tenant, tuple(request_id or ()), subject, model, period)
    order, kind = _order(reason), _kind(from_quarantine)

    with evidence_store(settings) as store:
        _note(store, "release", selection, order, of=kind)
        keys = selection.keys(store)
        progress = _progress("looked at")
        found = disposal.release(
            store, keys, order, kind=kind, placed_for=placed_for, progress=progress
        )
    _show_holding(found, "released", as_json=as_json)


def holds(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List what is under a hold or in quarantine."""
    from service.disposal import standing_holds
    from service.storing import evidence_store

    with evidence_store(_settings(data_dir, database_url)) as store:
        found = standing_holds(store, tenant)
    if as_json:
        print_json(found)
        return
    for each in found:
        since = f"{each.since:%F %T}"
        print_text(f"{each.tenant}  {each.request_id}  {each.kind}  {each.reason}  {since}")
    say(f"{len(found)} holds")


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Destroy records whose time was over two days ago, as a running service does every hour."""
    from service import disposal
    from service.accesses import person_at_the_machine
    from service.storing import evidence_store

    with evidence_store(_settings(data_dir, database_url)) as store:
        if dry_run:
            found = disposal.survey_purge(store)
        else:
            progress = _progress("purged")
            found = disposal.purge(store, person_at_the_machine(), progress=progress)
    if as_json:
        print_json({"dry_run": dry_run, **found.document()})
        return
    verb = "would be purged" if dry_run else "purged"
    print_text(f"{found.total} records {verb}; {found.held} expired ones are under a hold")
    for (of_tenant, model, name), count in sorted(found.purged.items()):
        print_text(f"{of_tenant}  {model}  {name}  {count}")


def _hold(selection: Selection, order: "Order", kind: "Hold", *, as_json: bool) -> None:
    from service import disposal
    from service.storing import evidence_store

    with evidence_store(selection.settings) as store:
        _note(store, kind, selection, order)
        keys = selection.keys(store)
        found = disposal.hold(store, keys, order, kind=kind, progress=_progress("looked at"))
    _show_holding(found, "held", as_json=as_json)


def _settings(
    data_dir: Path | None, database_url: str | None, secret_file: Path | None = None
) -> "Settings":
    from service.settings import Settings

    return Settings.load(data_dir=data_dir, database_url=database_url, secret_file=secret_file)


def _order(reason: str) -> "Order":
    from service.accesses import person_at_the_machine
    from service.disposal import Order

    return Order(person_at_the_machine(), reason, datetime.now(UTC))


def _kind(from_quarantine: bool) -> "Hold":
    return "quarantine" if from_quarantine else "hold"


def _note(
    store: "EvidenceStore",
    kind: "AccessKind",
    selection: Selection,
    order: "Order",
    **facts: object,
) -> None:
    """Into the access log, before it is done."""
    from service.accesses import at_the_machine, note

    said = {"selected_by": selection.manner, "reason": order.reason, **facts}
    only = selection.request_ids[0] if len(selection.request_ids) == 1 else None
    note(store, at_the_machine(kind, selection.tenant, only, **said))


def _counts(found: "Erasing") -> dict[str, int]:
    return {"erased": found.erased, "erased_before": found.gone, "held": len(found.held)}


def _progress(verb: str) -> Callable[[int], None]:
    """A line that counts, where somebody watches."""
    shown = sys.stderr.isatty()

    def tell(count: int) -> None:
        if shown:
            print(f"\r· {count} {verb}", end="", file=sys.stderr, flush=True)  # noqa: T201

    return tell


def _show_erasing(found: "Erasing", *, is_done: bool, as_json: bool, settings: "Settings") -> None:
    if as_json:
        held = [request_id for _, request_id in found.held]
        counts = {"erased": found.erased, "erased_before": found.gone, "held": held}
        print_json({"dry_run": not is_done, **counts})
        return
    verb = "erased" if is_done else "would be erased"
    print_text(f"{found.erased} records {verb}; {found.gone} had been before")
    for _, request_id in found.held[:MOST_SHOWN]:
        print_text(f"under a hold: {request_id}")
    if not is_done:
        say("nothing was erased: add --yes to do it")
    elif settings.key_backup_days and found.erased:
        until = datetime.now(UTC) + timedelta(days=settings.key_backup_days)
        say(f"copies of the key store may still open it until {until:%F}")


def _show_holding(found: "Holding", verb: str, *, as_json: bool) -> None:
    if as_json:
        print_json({verb: found.changed, "unchanged": found.unchanged, "gone": found.gone})
        return
    gone = f"; of {found.gone} nothing is left" if found.gone else ""
    print_text(f"{found.changed} records {verb}, {found.unchanged} were before{gone}")
