"""What callers with roles get to see: every answer that is about instances leaves through here."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import orjson

from explainers.base import FloatArray
from schemas import InvalidContentError, NotStrictJsonError
from service.auth import Caller
from service.errors import CommandError, ForbiddenError
from service.evidence import Record
from service.logs import log
from service.masking import Visible, masked_answer, masked_explanation, masked_record
from service.registry import RegisteredModel
from service.serving import ServedModels
from service.visible import visible_ranks

MOST_LOADED = 4
"""Versions that serve no more and are kept loaded, for those who look at old records."""


@dataclass(slots=True, eq=False)
class Views:
    """Of callers without a role all bytes pass as they are, at the cost of looking whether they
    have one.
    """

    models: ServedModels
    _loaded: OrderedDict[str, RegisteredModel] = field(default_factory=OrderedDict)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    def hidden(self, caller: Caller, model: str, columns: Collection[str]) -> frozenset[str]:
        """Which of these columns of a model the caller may not see."""
        if not caller.roles:
            return frozenset()
        return self.models.hidden(model, caller.roles, columns)

    def unasked_of(self, caller: Caller) -> frozenset[str] | None:
        """The models of which the caller may know what was explained unasked; None for all. Policy
        may decide that by the output, so that to know it bounds a number that a role withholds.
        """
        if not caller.roles:
            return None
        served = self.models.all.items()
        return frozenset(
            name for name, each in served if not self.hidden(caller, name, each.model.schema.names)
        )

    def sees_all(self, caller: Caller, record: Record) -> bool:
        """Nothing of the record is withheld: the caller may have its proof's openings too."""
        return not self._hidden_of(caller, record)

    def check_proof(self, caller: Caller, model: str, record: Record | None) -> None:
        """ForbiddenError for whoever may not see all of a record: its header says how long each
        part of the payload is, which tells of values.

        record None: an erased one, of that model. Which columns it had is not known any more:
        those of the version that is served, and where none is, nobody with a role sees all.
        """
        if record is not None:
            is_whole = self.sees_all(caller, record)
        else:
            served = self.models.all.get(model)
            names = None if served is None else served.model.schema.names
            is_whole = not caller.roles or (
                names is not None and not self.hidden(caller, model, names)
            )
        if not is_whole:
            raise ForbiddenError("a header tells of values, some of which this role may not see")

    def check_sees_all(self, caller: Caller, model: RegisteredModel) -> None:
        """ForbiddenError for whoever may not see each column of a model: what is said of all
        columns together tells of the masked ones.
        """
        if self.hidden(caller, model.name, model.schema.names):
            raise ForbiddenError("a role that masks columns of this model is not told this")

    def _hidden_of(self, caller: Caller, record: Record) -> frozenset[str]:
        if not caller.roles:
            return frozenset()
        columns = {
            name
            for row in orjson.loads(record.part("instances"))
            if row is not None
            for name in row
        }
        return self.hidden(caller, record.decision.model, columns)

    async def answer(self, caller: Caller, body: bytes, request: bytes) -> bytes:
        """The body of POST /predict for this caller; request: what he sent."""
        if not caller.roles:
            return body
        answer = orjson.loads(body)
        model = await self._version(answer["model"])
        if model is None:
            return masked_answer(body, None, None)
        hidden = self.hidden(caller, model.name, model.schema.names)
        if not hidden:
            return body
        visible = None
        if _is_complete(answer["explanation"]):
            rows = await asyncio.to_thread(_decoded, model, request, len(answer["predictions"]))
            visible = None if rows is None else await self._ranks(model, rows, hidden)
        return masked_answer(body, hidden, visible)

    async def record(self, caller: Caller, record: Record, document: bytes) -> bytes:
        """A record's document for this caller; the same one each time, like the whole one."""
        hidden = self._hidden_of(caller, record)
        if not hidden:
            return document
        return masked_record(document, hidden, await self._visible(record, hidden))

    async def explanation(self, caller: Caller, record: Record) -> bytes:
        """A record's explanation for this caller."""
        explanation = record.part("explanation")
        hidden = self._hidden_of(caller, record)
        if not hidden:
            return explanation
        return masked_explanation(explanation, await self._visible(record, hidden))

    async def _visible(self, record: Record, hidden: frozenset[str]) -> Visible | None:
        if record.status != "complete":
            return None
        model = await self._version(orjson.loads(record.decision.part("model")))
        if model is None:
            return None
        fed = orjson.loads(record.decision.part("fed"))
        rows = np.array([row for row in fed if row is not None], dtype=np.float64)
        found = await self._ranks(model, rows, hidden)
        if found is None or len(found) == len(fed):
            return found
        left = iter(found)
        return [None if row is None else next(left) for row in fed]

    async def _ranks(
        self, model: RegisteredModel, rows: FloatArray, hidden: frozenset[str]
    ) -> Visible | None:
        async with self._one_at_a_time:  # it may take seconds, and predictions go before it
            return await asyncio.to_thread(visible_ranks, model, rows, hidden)

    async def _version(self, reference: dict[str, object]) -> RegisteredModel | None:
        """The version of an answer's `model`, loaded if need be; None where that cannot be."""
        name, digest = str(reference["name"]), str(reference["digest"])
        served = self.models.all.get(name)
        if served is not None and served.model.digest == digest:
            return served.model
        model = self._loaded.get(digest)
        if model is None:
            version = int(str(reference["version"]))
            try:
                model = await asyncio.to_thread(self.models.registry.load, name, version)
            except CommandError as error:
                log.warning("version_not_loaded", model=name, version=version, reason=str(error))
                return None
        self._loaded[digest] = model
        self._loaded.move_to_end(digest)
        if len(self._loaded) > MOST_LOADED:
            self._loaded.popitem(last=False)
        return model if model.digest == digest else None


def _is_complete(explanation: dict[str, object] | None) -> bool:
    return explanation is not None and explanation["status"] == "complete"


def _decoded(model: RegisteredModel, request: bytes, n_rows: int) -> FloatArray | None:
    """(N, F) codes of a request that has been answered; None if this version reads it otherwise."""
    try:
        codes = model.codec.decode(request, max_instances=n_rows).codes
    except (NotStrictJsonError, InvalidContentError):
        return None
    return np.array(codes, dtype=np.float64)
