"""The asynchronous client."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from schemas import Accepted, ModelInfo, Proof, RecordSummary
from schemas.counterfactuals import Counterfactuals
from service.client.calls import Calls, Filter, Prediction, StoredPrediction
from service.client.explanation import Instance
from service.client.sending import Flow, Outcome, Pause, Repeats, Request, arguments_of

Result = TypeVar("Result")


class AsyncClient:
    """Asks a running service, from asyncio.

    url: where the service is. key: of the API, sent as a bearer token. tenant: whose records are
    read, where the key reaches several. repeats: when a call is made again. timeout_seconds: for
    the bytes of one answer, beside what it was asked to wait. http: what httpx's client takes
    (transport, verify, proxy, limits, headers, ...).

    One for each event loop; close it, or use it with `async with`.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        tenant: str | None = None,
        repeats: Repeats = Repeats(),  # noqa: B008 - immutable
        timeout_seconds: float = 30.0,
        **http: Any,  # noqa: ANN401 - httpx's own arguments
    ) -> None:
        self._http = httpx.AsyncClient(base_url=url, **http)
        if key is not None:
            self._http.headers["Authorization"] = f"Bearer {key}"
        self._timeout_seconds = timeout_seconds
        self._calls = Calls(repeats, tenant)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(  # noqa: PLR0913 - the parameters of the route
        self,
        instances: Iterable[Instance],
        *,
        model: str | None = None,
        explain: bool = False,
        top: int | None = None,
        request_id: str | None = None,
        wait: float | None = None,
        subjects: Sequence[str | None] | None = None,
    ) -> Prediction:
        """Predict, and explain if asked to; stored before it is answered.

        instances: column names to values; numpy's scalars are taken, NaN is a missing cell. model:
        by default the service's. top: how many of the strongest contributions to name. request_id:
        the record's name, 8 to 64 of A-Z a-z 0-9 . _ -; by default a new one. The same ID and
        request give the first answer again, so repeating is safe, also by whoever calls this.
        wait: seconds for an explanation that is queued; it may still be pending then. subjects:
        whom each row is about. Raises InvalidError with pointers to what is wrong.
        """
        return await self._run(
            self._calls.predict(
                instances,
                model=model,
                explain=explain,
                top=top,
                request_id=request_id,
                wait=wait,
                subjects=subjects,
            )
        )

    async def explanation(self, request_id: str, wait: float | None = None) -> StoredPrediction:
        """The stored record; wait: seconds for one that is pending, which it may still be then.

        Raises NotFoundError, or GoneError where it was erased.
        """
        return await self._run(self._calls.explanation(request_id, wait))

    async def wait_for(self, request_id: str, timeout: float = 300.0) -> StoredPrediction:  # noqa: ASYNC109 - the service is told it
        """The record once it is final; StillPendingError after so many seconds."""
        return await self._run(self._calls.wait_for(request_id, timeout))

    async def explain_again(
        self, request_id: str, method: str | None = None, new_request_id: str | None = None
    ) -> Accepted:
        """Have a past prediction explained again, or by another method, by a worker.

        The result is a record of its own, under the answer's request_id: `wait_for` it.
        """
        return await self._run(self._calls.explain_again(request_id, method, new_request_id))

    async def counterfactuals(self, request_id: str, instance: int = 0) -> Counterfactuals:
        """What would have to change for the decision the policy aims at, as `Client` has it."""
        return await self._run(self._calls.counterfactuals(request_id, instance))

    async def explanations(
        self,
        *,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        status: str | None = None,
    ) -> AsyncIterator[RecordSummary]:
        """Records newest first, fetched a page at a time. Needs the scope audit."""
        matching, cursor = Filter(model, since, until, status), None
        while True:
            page = await self._run(self._calls.page(matching, cursor))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def proof(self, request_id: str) -> Proof:
        """That the signed log has the record; waits out the second until it is signed."""
        return await self._run(self._calls.proof(request_id))

    async def feedback(self, request_id: str, rating: int, comment: str | None = None) -> None:
        """Rate an explanation from 1 to 5; a later rating replaces this one."""
        await self._run(self._calls.feedback(request_id, rating, comment))

    async def labels(self, request_id: str, labels: Sequence[object]) -> None:
        """What the instances turned out to be, None where not known yet; replaces earlier ones."""
        await self._run(self._calls.labels(request_id, labels))

    async def models(self) -> list[ModelInfo]:
        """What is served: columns, versions, and a sample request that works."""
        return await self._run(self._calls.models())

    async def model(self, name: str) -> ModelInfo:
        """The same of one model."""
        return await self._run(self._calls.model(name))

    async def _run(self, flow: Flow[Result]) -> Result:
        outcome: Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            outcome = await self._done(step)

    async def _done(self, step: Request | Pause) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(**arguments_of(step, self._timeout_seconds))
        except httpx.TransportError as error:
            return error
