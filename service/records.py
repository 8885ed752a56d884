"""Stored decisions as the documents auditors fetch: exact slices of stored bytes, joined."""

import orjson

from service.evidence import Page, StoredDecision


def record_document(stored: StoredDecision) -> bytes:
    """GET /explanations/{id}: the same bytes every time, years later too, because the pieces are
    the stored ones and only the request ID and the time stand between them.
    """
    names = ("model", "instances", "predictions", "explanation", "provenance")
    head = orjson.dumps(
        {"request_id": stored.request_id, "received_at": stored.received_at},
        option=orjson.OPT_UTC_Z,
    )
    pieces = b"".join(b',"%s":%s' % (name.encode(), stored.part(name)) for name in names)
    return head[:-1] + pieces + b"}"


def list_document(page: Page) -> dict[str, object]:
    """GET /explanations: one line a record."""
    return {
        "items": [
            {
                "request_id": item.request_id,
                "received_at": item.received_at,
                "model": {
                    "name": item.model,
                    "version": item.version,
                    "digest": item.model_digest,
                },
                "status": item.status,
                "lane": item.lane,
            }
            for item in page.items
        ],
        "next_cursor": page.next_cursor,
    }
