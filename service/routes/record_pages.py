"""A record as a page or as a plot: what these show beside the document, and making them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from service.auth import Caller
from service.errors import StoreAwayError
from service.evidence import EvidenceError, Record
from service.negotiation import JSON, SVG
from service.pages.explanation import (
    Asked,
    Beside,
    NotInRecordError,
    Proof,
    explanation_page,
    explanation_plot,
)
from service.pages.rendering import Rendered
from service.proofs import checked_proof
from service.routes.reading import RETRY_AFTER_SECONDS
from service.routes.representing import not_there
from service.runtime import Runtime

CARRIED = ("tenant", "instance", "output")


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """A record somebody may read, and how he looks at it."""

    runtime: Runtime
    caller: Caller
    record: Record
    asked: Asked

    async def represented(self, document: bytes, media_type: str) -> Rendered:
        """The record's document for this caller in that media type. Pages are made in a thread:
        predictions are answered meanwhile. NotFoundError for an instance or output that the
        record does not have; StoreAwayError.
        """
        if media_type == JSON:
            return Rendered(document, JSON, "")
        beside = None if media_type == SVG else await self._beside()
        try:
            return await asyncio.to_thread(_made, document, self.asked, beside)
        except NotInRecordError as error:
            raise not_there(error.parameter, str(error)) from None

    async def _beside(self) -> Beside:
        record = self.record
        retry_after = RETRY_AFTER_SECONDS if record.is_pending else None
        if not self.runtime.views.sees_all(self.caller, record):
            return Beside(Proof("withheld"), None, retry_after)
        warnings = orjson.loads(record.part("warnings"))
        return Beside(await self._proof(), warnings, retry_after)

    async def _proof(self) -> Proof:
        if not self.record.is_sequenced:
            return Proof("awaited")
        ledger, request_id = self.runtime.ledger, self.record.decision.request_id
        try:
            return await self.runtime.evidence.read(
                lambda store: checked_proof(store, ledger, self.caller, request_id)
            )
        except EvidenceError:
            raise StoreAwayError from None


def asked_of(instance: int, output: str | None, query: Mapping[str, str]) -> Asked:
    """What is looked at; query: that of the request, of which links carry a part on."""
    kept = {name: query[name] for name in CARRIED if name in query}
    if query.get("format") == "html":
        kept["format"] = "html"
    return Asked(instance, output, kept)


def _made(document: bytes, asked: Asked, beside: Beside | None) -> Rendered:
    record = orjson.loads(document)
    return (
        explanation_plot(record, asked)
        if beside is None
        else explanation_page(record, asked, beside)
    )
