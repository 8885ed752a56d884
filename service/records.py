"""Stored decisions as the documents auditors fetch: exact slices of stored bytes, joined."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import orjson

from service.evidence import ListedDecision, Page, Record

REVIEW_PERIOD = timedelta(days=30)
EARLIEST = datetime.min.replace(tzinfo=UTC)


def record_document(record: Record) -> bytes:
    """GET /explanations/{id}: once final the same bytes every time, years later too, because the
    pieces are the stored ones and only the request IDs and the time stand between them. After the
    erasure of one subject of several it says so, and what was his is null.
    """
    names = ("model", "instances", "predictions", "explanation", "provenance")
    decision = record.decision
    own = {"request_id": decision.request_id, "received_at": decision.received_at}
    if decision.parent_request_id is not None:
        own["parent_request_id"] = decision.parent_request_id
    if decision.is_parted:
        own["erased_in_part"] = True
    head = orjson.dumps(own, option=orjson.OPT_UTC_Z)
    pieces = b"".join(b',"%s":%s' % (name.encode(), record.part(name)) for name in names)
    return head[:-1] + pieces + b"}"


def record_warnings(record: Record) -> object:
    """The answer's `warnings`; None where they are erased in part."""
    return orjson.loads(record.part("warnings"))


def decision_rule(record: Record) -> object:
    """The threshold that the record's decisions were made by, as a document; None without any."""
    if "policy" not in record.decision.parts:
        return None
    said = orjson.loads(record.decision.part("policy"))
    return None if said is None else said["threshold"]


def list_document(page: Page) -> dict[str, object]:
    """GET /explanations: one line a record."""
    return {"items": [_summary(item) for item in page.items], "next_cursor": page.next_cursor}


def review_document(
    items: Sequence[ListedDecision], *, period: tuple[datetime, datetime], size: int
) -> dict[str, object]:
    """GET /models/{name}/review: the sample, in the order of its draw."""
    since, until = period
    return {
        "size": size,
        "since": since,
        "until": until,
        "items": [_summary(item) for item in items],
    }


def review_period(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """The time a review looks back on: the last REVIEW_PERIOD where nothing else is said."""
    end = until or datetime.now(UTC)
    return since or EARLIEST + max(timedelta(0), end - EARLIEST - REVIEW_PERIOD), end


def _summary(item: ListedDecision) -> dict[str, object]:
    return {
        "request_id": item.request_id,
        "received_at": item.received_at,
        "model": {"name": item.model, "version": item.version, "digest": item.model_digest},
        "status": item.status,
        "lane": item.lane,
    }
