"""Counterfactuals of recorded decisions: found off the event loop, stored before they are told."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import orjson

from schemas import Violation
from schemas.counterfactuals import NewInstance, PastInstance
from service.advising import Advice, Instance, advise
from service.appending import append_about
from service.auth import Caller
from service.calls import PredictCall
from service.errors import (
    ForbiddenError,
    InvalidRequestError,
    NoRecourseError,
    OverloadedError,
    PolicyReplacedError,
    QuotaExceededError,
    StoreAwayError,
    VersionReplacedError,
)
from service.evidence import (
    CounterfactualEvent,
    EvidenceError,
    HeaderTemplate,
    Parts,
    Record,
    StoredDecision,
    StoredRepeatable,
    laid_out,
)
from service.followup import check_explainable
from service.policy import ModelPolicy, Recourse
from service.predicting import PredictService
from service.served import ServedModel
from service.views import Views
from service.watching import Watch

MOST_AT_ONCE = 2
"""Searches in one process: each keeps a thread busy, and predictions go before them."""

MOST_WAITING = 16

MOST_WAITING_OF_TENANT = 4
"""So that one tenant does not keep the others out."""


class RecourseCall(NamedTuple):
    """One POST /counterfactuals, and the ID under which an instance is recorded first."""

    wanted: PastInstance | NewInstance
    request_id: str
    is_id_chosen: bool
    caller: Caller
    trace_id: str | None = None


@dataclass(slots=True, eq=False)
class RecourseService:
    """One per process."""

    predicting: PredictService
    watch: Watch
    views: Views
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE))
    _waiting: int = 0
    _of_tenant: Counter[str] = field(default_factory=Counter)

    async def find(self, call: RecourseCall) -> bytes:
        """The answer as JSON, stored as evidence about the request.

        Raises what predicting an instance raises, and NotFoundError for a record the caller may not
        read, ForbiddenError for a role with masked columns, VersionReplacedError, NoRecourseError,
        PolicyReplacedError, InvalidRequestError, QuotaExceededError, OverloadedError,
        StoreAwayError, GoneError.
        """
        self._check_room(call.caller)
        wanted, place = call.wanted, 0
        if isinstance(wanted, NewInstance):
            await self._predict(call, wanted)
            request_id = call.request_id
        else:
            request_id, place = wanted.request_id, wanted.instance
        record = await self.watch.find(call.caller, request_id, what="counterfactual")
        if not self.views.sees_all(call.caller, record):
            raise ForbiddenError("what would change a decision tells of masked columns")
        check_explainable(record.decision, is_told=not call.caller.roles)
        recorded = _instance(record, place)
        served = self._serving(record.decision)
        policy, recourse = _rules_of(served)
        _check_threshold(record, recourse)
        if not isinstance(wanted, NewInstance):
            self._take(call.caller, served)
        advice = await self._advise(call.caller, served, recourse, recorded)
        document = {
            "request_id": request_id,
            "instance": place,
            "model": orjson.loads(record.decision.part("model")),
            **advice.document,
            "policy_version": policy.version,
        }
        encoded = orjson.dumps(document)
        content = _payload(record.decision, place, encoded)
        await self._append(record.decision, content, call.caller, policy)
        return encoded

    async def told(self, caller: Caller, request_id: str) -> bytes:
        """The last MOST_LISTED that were found of a record the caller may read, oldest first, as
        JSON.

        Raises NotFoundError, ForbiddenError for a role with masked columns, StoreAwayError.
        """
        record = await self.watch.find(caller, request_id)
        if not self.views.sees_all(caller, record):
            raise ForbiddenError("what would change a decision tells of masked columns")
        try:
            stored = await self.watch.evidence.counterfactuals(record.decision)
        except EvidenceError:
            raise StoreAwayError from None
        return await asyncio.to_thread(_listed, stored)

    async def _predict(self, call: RecourseCall, wanted: NewInstance) -> None:
        """Have an instance predicted and recorded as an ordinary request, unless what follows would
        be refused.
        """
        served = self.predicting.models.resolve(wanted.model)
        if self.views.hidden(call.caller, served.model.name, served.model.schema.names):
            raise ForbiddenError("what would change a decision tells of masked columns")
        _rules_of(served)
        call.caller.require("predict")
        self._take(call.caller, served)
        content: dict[str, object] = {"instances": wanted.instances}
        if wanted.subjects is not None:
            content["subjects"] = wanted.subjects
        await self.predicting.predict(
            PredictCall(
                model=wanted.model,
                body=json.dumps(content).encode(),  # orjson writes no integers beyond 64 bits
                explain=False,
                top=None,
                request_id=call.request_id,
                is_id_chosen=call.is_id_chosen,
                caller=call.caller,
                trace_id=call.trace_id,
            )
        )

    def _take(self, caller: Caller, served: ServedModel) -> None:
        try:
            self.predicting.quotas.take_recourse(caller)
        except QuotaExceededError as error:
            served.metrics.errors("recourse", type(error).__name__).inc()
            raise

    def _serving(self, decision: StoredDecision) -> ServedModel:
        """The version that answered, if it answers still, be it as a canary."""
        digest = orjson.loads(decision.part("model"))["digest"]
        served = self.predicting.models.resolve(decision.model)
        tried = None if served.tried is None else served.tried.candidate
        for version in (served, tried):
            if version is not None and version.model.digest == digest:
                return version
        raise VersionReplacedError

    def _check_room(self, caller: Caller) -> None:
        """OverloadedError where no more searches may wait, or no more of the caller's tenant."""
        own = self._of_tenant[caller.tenant] - MOST_WAITING_OF_TENANT
        if max(own, self._waiting - MOST_WAITING) >= MOST_AT_ONCE:
            raise OverloadedError

    async def _advise(
        self,
        caller: Caller,
        served: ServedModel,
        recourse: Recourse,
        recorded: tuple[Instance, list[float]],
    ) -> Advice:
        self._check_room(caller)
        self._waiting += 1
        self._of_tenant[caller.tenant] += 1
        instance, row = recorded
        fed, status = np.array(row, dtype=np.float64), "failed"
        try:
            async with self._room:
                advice = await asyncio.to_thread(advise, served, recourse, instance, fed)
            status = advice.status
            self.watch.metrics.recourse.duration.labels(served.model.name).observe(advice.seconds)
            return advice
        finally:
            self._waiting -= 1
            self._of_tenant -= Counter([caller.tenant])
            self.watch.metrics.recourse.searches.labels(served.model.name, status).inc()

    async def _append(
        self,
        decision: StoredDecision,
        content: tuple[bytes, Parts],
        caller: Caller,
        policy: ModelPolicy,
    ) -> None:
        template = HeaderTemplate.from_header(decision.header, policy_version=policy.version)
        await append_about(
            self.watch.evidence,
            decision,
            CounterfactualEvent,
            content,
            caller=caller,
            template=template,
        )


def _rules_of(served: ServedModel) -> tuple[ModelPolicy, Recourse]:
    policy = served.policy
    if policy is None or policy.recourse is None:
        raise NoRecourseError
    return policy, policy.recourse


def _check_threshold(record: Record, recourse: Recourse) -> None:
    """PolicyReplacedError where the record was decided otherwise than the policy would now."""
    if "policy" not in record.decision.parts:
        return
    said = orjson.loads(record.decision.part("policy"))
    if said["threshold"] != recourse.goal.decided_by:
        raise PolicyReplacedError


def _instance(record: Record, place: int) -> tuple[Instance, list[float]]:
    """The instance as it was recorded, and as it was fed to the model."""
    instances = orjson.loads(record.part("instances"))
    if place >= len(instances):
        detail = "the request has fewer instances"
        raise InvalidRequestError(
            "see errors", errors=[Violation("/instance", detail, "no_such_instance")]
        )
    return instances[place], orjson.loads(record.decision.part("fed"))[place]


def _payload(decision: StoredDecision, place: int, answer: bytes) -> tuple[bytes, Parts]:
    """The answer in the place of its instance, so that it goes with that one's subject."""
    rows = [b"null"] * len(orjson.loads(decision.part("outputs")))
    rows[place] = answer
    pieces = [b'{"counterfactuals":', b"[" + b",".join(rows) + b"]", b"}"]
    return laid_out(pieces, ["counterfactuals"])


def _listed(stored: Sequence[StoredRepeatable]) -> bytes:
    items = [
        one | {"principal": each.actor, "told_at": _completed_at(each.header)}
        for each in stored
        for one in orjson.loads(each.part("counterfactuals"))
        if one is not None
    ]
    return orjson.dumps({"items": items})


def _completed_at(header: bytes) -> str:
    return str(orjson.loads(header)["completed_at"])
