"""Past predictions explained again, and explanations called off."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from schemas import Method, Violation
from service import answers, reasons
from service.answers import COPIED_PARTS, DEFAULT_TOP, Fragments
from service.auth import Caller
from service.delivery import Delivery, job_of
from service.disposal import unrepeatable
from service.endings import CANCELLED, failed_final, reasons_of
from service.errors import (
    AlreadyFinalError,
    CommandError,
    ConflictError,
    InternalError,
    InvalidRequestError,
    QueueLimitError,
    QuotaExceededError,
    StoreAwayError,
)
from service.evidence import (
    AppendOutcome,
    DecisionEvent,
    Event,
    EvidenceError,
    HeaderTemplate,
    Parts,
    Record,
    StoredDecision,
    WithheldError,
)
from service.methods import config_digest, refusal
from service.metrics import ROLE
from service.policy import forbidden_by
from service.queue import QueueError
from service.quotas import Quotas
from service.registry.described import KnownVersion, describe_version
from service.registry.libraries import git_revision, service_version
from service.secrets import Keyring
from service.serving import ServedModels
from service.watching import Watch

GONE = "the version that answered is not in the registry any more"


class AgainCall(NamedTuple):
    """One POST /explanations: which request, how, and under which ID the new record is kept."""

    parent_request_id: str
    method: Method | None
    request_id: str
    is_id_chosen: bool
    caller: Caller
    trace_id: str | None = None


class AgainReply(NamedTuple):
    """The answer's body; a replay is the first answer's, with nothing queued."""

    body: bytes
    is_replay: bool


@dataclass(slots=True, eq=False)
class FollowUps:
    """What is asked for after the prediction; one per process."""

    models: ServedModels
    watch: Watch
    delivery: Delivery
    keyring: Keyring
    quotas: Quotas

    async def explain_again(self, call: AgainCall) -> AgainReply:
        """Store a pending record of its own for a past prediction, then queue it.

        Raises NotFoundError for a record the caller may not read, InvalidRequestError where the
        method cannot explain its model or policy allows no explanation, ConflictError for an ID
        that names another request, QueueLimitError, QuotaExceededError, StoreAwayError.
        """
        fingerprint = self._fingerprint(call)
        if call.is_id_chosen and (first := await self._stored(call)) is not None:
            return _replay(first, call, fingerprint)
        parent = await self.watch.find(call.caller, call.parent_request_id, what="explain_again")
        check_explainable(parent.decision, is_told=not call.caller.roles)
        version = await self._version(parent.decision)
        n_rows = len(orjson.loads(parent.decision.part("outputs")))
        reason = refusal(version, call.method, n_rows)
        if reason is not None:
            raise _invalid("/method", reason, "method_not_possible")
        self._admit(call.caller, parent.decision.model, n_rows)
        event = _again(parent.decision, version, call, fingerprint)
        try:
            outcome = await self.delivery.evidence.append(event)
        except EvidenceError:
            raise StoreAwayError from None
        if outcome is AppendOutcome.CONFLICT:
            return _replay(await self._stored(call), call, fingerprint)
        metrics = self.delivery.metrics
        metrics.wanted.labels(event.template.model, ROLE, "queued").inc()
        await self.delivery.submit(
            job_of(
                event,
                version.digest,
                priority="high",
                method=call.method,
                trace_id=call.trace_id,
            )
        )
        return AgainReply(_accepted(event, "pending"), is_replay=False)

    async def cancel(self, caller: Caller, request_id: str) -> bytes:
        """End a pending explanation as failed; a worker that has it in hand finds it ended.

        Raises NotFoundError, AlreadyFinalError, StoreAwayError.
        """
        record = await self.watch.find(caller, request_id, what=None)
        if not record.is_pending:
            raise AlreadyFinalError
        event = failed_final(
            record,
            CANCELLED + caller.principal,
            outcome="rejected",
            actor=caller.principal,
            auth_method=caller.auth_method,
        )
        try:
            outcome = await self.delivery.evidence.append_final(event)
        except EvidenceError:
            raise StoreAwayError from None
        if not outcome.stored:
            raise AlreadyFinalError
        if outcome.counted:
            self.delivery.metrics.ended(
                event.template.model, event.outcome, was_counted=record.was_counted
            )
        if self.delivery.queue is not None:
            with suppress(QueueError):  # who waits looks into the store in a few seconds
                await self.delivery.queue.announce_final(caller.tenant, request_id)
        return _accepted(event, "failed")

    def _admit(self, caller: Caller, model: str, n_rows: int) -> None:
        """Raises QueueLimitError, QuotaExceededError; the first is one more that was not served."""
        metrics = self.delivery.metrics
        if self.delivery.is_full:
            metrics.ended(model, "rejected", was_counted=False)
            raise QueueLimitError
        try:
            self.quotas.take(caller, n_rows, predict=False, explain=True)
        except QuotaExceededError as error:
            metrics.errors.labels(model, "explain", type(error).__name__).inc()
            raise

    def _fingerprint(self, call: AgainCall) -> str:
        message = orjson.dumps(["explain again", call.parent_request_id, call.method])
        return self.keyring.digest(call.caller.tenant, "fingerprint", message)

    async def _stored(self, call: AgainCall) -> Record | None:
        try:
            return await self.delivery.evidence.record(call.caller.tenant, call.request_id)
        except WithheldError as error:
            raise unrepeatable(call.caller.principal, error) from None
        except EvidenceError:
            raise StoreAwayError from None

    async def _version(self, decision: StoredDecision) -> KnownVersion:
        """What answered; InvalidRequestError when the registry has it no more."""
        digest = orjson.loads(decision.part("model"))["digest"]
        served = self.models.all.get(decision.model)
        if served is not None and served.model.digest == digest:
            return served.model
        layout = self.models.registry.layout
        try:
            version = await asyncio.to_thread(
                describe_version, layout, decision.model, decision.version
            )
        except CommandError:
            raise _invalid("/request_id", GONE, "version_gone") from None
        if version.digest != digest:
            raise _invalid("/request_id", GONE, "version_gone")
        return version


def check_explainable(parent: StoredDecision, *, is_told: bool) -> None:
    """InvalidRequestError where the policy at the time of the prediction allowed no explanation, or
    what it was asked for is not all there.

    is_told: by which rule, which may be about a column that not everybody may see.
    """
    if parent.is_parted:
        raise _invalid("/request_id", "the record was erased in part", "erased_in_part")
    if "policy" not in parent.parts:
        return
    ruling = orjson.loads(parent.part("policy"))
    if not ruling["allowed"]:
        detail = forbidden_by(ruling["rule"]) if is_told else "the policy allows no explanation"
        raise _invalid("/request_id", detail, "policy_forbids")


def _invalid(pointer: str, detail: str, code: str) -> InvalidRequestError:
    return InvalidRequestError("see errors", errors=[Violation(pointer, detail, code)])


def _replay(first: Record | None, call: AgainCall, fingerprint: str) -> AgainReply:
    if first is None:
        raise InternalError("the record that took this ID cannot be found")
    decision = first.decision
    same = (
        decision.actor == call.caller.principal
        and orjson.loads(decision.part("fingerprint")) == fingerprint
    )
    if not same:
        raise ConflictError
    return AgainReply(_accepted(decision, "pending"), is_replay=True)


def _accepted(request: Event | StoredDecision, status: str) -> bytes:
    return orjson.dumps(
        {
            "request_id": request.request_id,
            "parent_request_id": request.parent_request_id,
            "status": status,
            "links": {"self": f"/explanations/{request.request_id}"},
        }
    )


def _again(
    parent: StoredDecision, version: KnownVersion, call: AgainCall, fingerprint: str
) -> DecisionEvent:
    """The parent's prediction as a pending record of its own."""
    now = datetime.now(UTC)
    method = call.method or version.manifest.explainer.method
    template = HeaderTemplate.from_header(
        parent.header,
        service_version=service_version(),
        git_revision=git_revision(),
        method=method,
        engine=None,
        exact=None,
        config_digest=config_digest(version, call.method),
    )
    payload, parts = _payload(parent, version, call, fingerprint, now)
    return DecisionEvent(
        template=template,
        request_id=call.request_id,
        received_at=now,
        completed_at=now,
        status="pending",
        lane="queued",
        payload=payload,
        parts=parts,
        tenant=call.caller.tenant,
        actor=call.caller.principal,
        auth_method=call.caller.auth_method,
        parent_request_id=parent.request_id,
        subjects=parent.subjects,
    )


def _payload(
    parent: StoredDecision,
    version: KnownVersion,
    call: AgainCall,
    fingerprint: str,
    now: datetime,
) -> tuple[bytes, Parts]:
    pending = answers.encode_unexplained(
        *(version, "pending", None),
        lane="queued",
        request_id=call.request_id,
        method=call.method,
        beside=reasons.pending(reasons_of(parent)),
    )
    fragments = Fragments(parent.part("predictions"), pending, parent.part("warnings"))
    answer, ranges = answers.encode_answer(parent.part("model"), call.request_id, fragments)
    provenance = orjson.loads(parent.part("provenance")) | {
        "worker": None,
        "seed": None,
        "cpu_seconds": None,
        "lane": "queued",
        "received_at": now,
        "completed_at": now,
        "principal": call.caller.principal,
        "explainer_config_digest": config_digest(version, call.method),
    }
    top = min(DEFAULT_TOP, len(version.schema.columns))
    pieces = {name: parent.part(name) for name in COPIED_PARTS if name in parent.parts}
    if parent.subjects is not None:
        pieces["subjects"] = parent.subjects.encode()
    pieces["provenance"] = orjson.dumps(provenance, option=orjson.OPT_UTC_Z)
    pieces["fingerprint"] = orjson.dumps(fingerprint)
    pieces["ask"] = answers.encode_ask(
        top, "high", None, method=call.method, trace_id=call.trace_id
    )
    return answers.join_payload(answer, ranges, pieces)
