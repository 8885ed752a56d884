"""`explaind replay`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    JobTimeLimitSeconds,
    PolicyPath,
    RegistryDir,
    SecretFile,
    print_text,
    say,
)

if TYPE_CHECKING:
    from service.cli.explain import Bar
    from service.evidence import Record
    from service.settings import Settings


def replay(
    request_id: Annotated[str, typer.Argument(help="Request ID of a past prediction.")],
    tenant: Annotated[str, typer.Option(help="Tenant the record belongs to.")] = "default",
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    secret_file: SecretFile = None,
    policy_file: PolicyPath = None,
    job_time_limit_seconds: JobTimeLimitSeconds = None,
    as_json: AsJson = False,
) -> None:
    """Compute a stored prediction and explanation again and compare them byte by byte.

    Exit codes: 0 equal, 1 not equal, 3 no such record, 5 its version is not in the registry.
    """
    from service.errors import CheckFailedError
    from service.logs import configure_logs
    from service.settings import Settings

    settings = Settings.load(
        data_dir=data_dir,
        registry=registry,
        database_url=database_url,
        secret_file=secret_file,
        policy_file=policy_file,
        job_time_limit_seconds=job_time_limit_seconds,
    )
    configure_logs(level="WARNING")
    report = _replayed(settings, _record(settings, tenant, request_id), as_json=as_json)
    if not report["equal"]:
        raise CheckFailedError(f"the replay of {request_id} is not equal to its record")


def _record(settings: "Settings", tenant: str, request_id: str) -> "Record":
    from service.cli.records import shown
    from service.errors import CheckFailedError
    from service.evidence import UnreadablePayloadError
    from service.storing import evidence_store

    with evidence_store(settings) as store:
        try:
            return shown(store, tenant, request_id, kind="replay")
        except UnreadablePayloadError as error:
            reason = f"the record of {request_id} cannot be opened: {error}"
            raise CheckFailedError(reason) from None


def _replayed(settings: "Settings", record: "Record", *, as_json: bool) -> dict[str, Any]:
    import orjson

    say(f"replaying with {record.decision.model}/{record.decision.version}")
    report: dict[str, Any] = orjson.loads(_report(settings, record))
    if as_json:
        print_text(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        print_text("\n".join(_lines(report)))
    return report


def _report(settings: "Settings", record: "Record") -> bytes:
    import asyncio

    from service.cli.explain import Bar
    from service.compute import NotHereError
    from service.errors import CheckFailedError, UnavailableError
    from service.replaying import Recorded
    from service.replays import ReplayLostError, replay_apart

    bar = Bar()
    try:
        return asyncio.run(
            replay_apart(Recorded.of(record), settings, lambda facts: _show(bar, facts))
        )
    except NotHereError as error:
        raise UnavailableError(str(error)) from None
    except ReplayLostError as error:
        raise CheckFailedError(str(error)) from None
    finally:
        bar.end()


def _show(bar: "Bar", facts: Mapping[str, Any]) -> None:
    from service.bulk import Progress

    if "rows" in facts:  # else its model is being loaded
        bar.show(Progress(facts["rows_done"], facts["rows"]))


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['request_id']}: {'equal' if report['equal'] else 'NOT EQUAL'}"]
    if report["reason"]:
        lines.append(f"reason: {report['reason']}")
    parts = ("inputs", "predictions", "explanation")
    lines += [f"{name}: {_verdict(report[name])}" for name in parts if report[name] is not None]
    if report["differing_digests"]:
        lines.append(f"other digests: {', '.join(report['differing_digests'])}")
    for name in report["differing_libraries"]:
        then, now = (report[side].get(name, "absent") for side in ("recorded", "running"))
        lines.append(f"{name}: {then} then, {now} now")
    return lines


def _verdict(part: dict[str, Any]) -> str:
    if part["equal"]:
        return "the same bytes"
    gap, others = part.get("largest_gap"), part.get("others")
    told = ["differ"]
    if gap is not None:
        told.append(
            f"by up to {gap['absolute']:.3g} (relative {gap['relative']:.3g}) at {gap['pointer']}"
        )
    if others:
        told.append(f"at {', '.join(others)}")
    return " ".join(told)
