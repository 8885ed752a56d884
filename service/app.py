"""The composition root: builds the runtime in one lifespan and hands it to the routes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, compile_path
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from schemas import Violation
from service.admission import Admission
from service.audit_counts import CommitCounts, LogCounts, SpoolCounts
from service.auth import Authenticator
from service.collecting import look_rarely, pass_over_what_stays
from service.delivery import Delivery
from service.drift.keeping import keeping
from service.drift.tallying import Tallies
from service.drifting import DriftWatch
from service.errors import (
    CommandError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServiceError,
)
from service.evidence import EvidenceError, Spooling, SpoolLimits
from service.http import Edge, refusal_for
from service.ledger import Ledger, Sequencing
from service.logs import log, place_of
from service.measuring import PerformanceWatch
from service.metrics import Metrics
from service.outbox import Outbox
from service.policies import Policies
from service.predicting import Limits, PredictService
from service.purges import PurgeJob
from service.quality import QualitySampling
from service.queue import JobQueue
from service.queue.embedded import Embedded
from service.queue_metrics import QueueMetrics
from service.quotas import Quotas
from service.registry import Registry
from service.rehearsal import rehearse
from service.remote_metrics import JointRegistry
from service.retraining.telling import Webhook
from service.routes import (
    cards,
    counterfactuals,
    documents,
    explanations,
    followups,
    health,
    importance,
    inference,
    kserve,
    ledger,
    models,
    narratives,
    votes,
)
from service.routes.inference import INFER_PATHS, InferEndpoint
from service.routes.kserve import V1_EXPLAIN, V1_PREDICT, V1Endpoint
from service.routes.predict import PREDICT_PATHS, PredictEndpoint, count_refusal
from service.runtime import Exposed, Runtime
from service.secrets import WEBHOOK_KEYS, Keyring
from service.serving import ServedModels
from service.settings import Settings
from service.storing import evidence_log

FOLLOW_SECONDS = 1.0
NO_DEFAULT_PAGES: dict[str, Any] = {
    "openapi_url": None,
    "docs_url": None,
    "redoc_url": None,
    "redirect_slashes": False,
}
PARTS = (
    *(
        explanations,
        narratives,
        followups,
        votes,
        ledger,
        models,
        cards,
        importance,
        health,
        documents,
    ),
    *(kserve, inference, counterfactuals),
)
METHOD_NOT_ALLOWED = 405
NOT_FOUND = 404


def create_app(
    settings: Settings, *, customise: Callable[[Runtime], None] | None = None
) -> FastAPI:
    """The service as an ASGI application.

    customise sees the runtime before the first request: where tests put failing parts.
    """
    metrics = Metrics()
    authenticator = Authenticator(settings.api_keys_file)

    def count_refused(method: str, route: str, status: int) -> None:
        metrics.http_duration_of(method, route, status).observe(0.0)

    admission = Admission(settings.max_at_once, count_refused)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            try:
                runtime = await _start(settings, metrics, authenticator, admission, opened)
            except CommandError as error:
                app.state.startup_error = error  # the server only says that start-up failed
                raise
            app.state.runtime = runtime
            await rehearse(runtime, _application_of)
            if customise is not None:
                customise(runtime)
            async with _running(runtime):
                yield

    app = _assembled(metrics, authenticator, lifespan=lifespan)
    app.state.admission = admission  # the server asks it before there is a request
    return app


def _assembled(
    metrics: Metrics, authenticator: Authenticator, *, lifespan: Lifespan[FastAPI] | None = None
) -> FastAPI:
    app = _Application(version=version("explaind"), lifespan=lifespan, **NO_DEFAULT_PAGES)
    app.put_behind(partial(Edge, metrics=metrics, checks_host=not authenticator.needs_keys))
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_direct_routes(PREDICT_PATHS, PredictEndpoint(), methods=["POST"])
    app.add_direct_routes((V1_PREDICT,), V1Endpoint(explain=False), methods=["POST"])
    app.add_direct_routes((V1_EXPLAIN,), V1Endpoint(explain=True), methods=["POST"])
    app.add_direct_routes(INFER_PATHS, InferEndpoint(), methods=["POST"])
    for part in PARTS:
        app.include_router(part.router)
    return app


def _application_of(runtime: Runtime) -> FastAPI:
    """The application over a runtime that somebody else opens and closes."""
    app = _assembled(runtime.metrics, runtime.authenticator)
    app.state.runtime = runtime
    return app


class _NamedRoute(Route):
    """A route that metrics can name, as FastAPI's own are."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, {**found, "route": self} if found else found


class _Application(FastAPI):
    """FastAPI, and routes called without its layers around them, which saves 20 us a request
    (docs/decisions/0002). To everything else these are routes like others.
    """

    _direct_routes: tuple[_NamedRoute, ...] = ()
    _edge: Edge

    def put_behind(self, edge: Callable[..., Edge]) -> None:
        """Have all requests go through this layer first."""
        self.add_middleware(edge)
        self._edge = edge(_call_endpoint, on_refusal=count_refusal)

    def add_direct_routes(
        self, paths: Sequence[str], endpoint: ASGIApp, *, methods: list[str]
    ) -> None:
        """Serve an ASGI endpoint under these paths."""
        routes = [_NamedRoute(path, endpoint, methods=methods) for path in paths]
        self.router.routes += routes
        self._direct_routes += tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for route in self._direct_routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found, app=self)
                    await self._edge(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


async def _call_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    await scope["endpoint"](scope, receive, send)


async def _start(
    settings: Settings,
    metrics: Metrics,
    authenticator: Authenticator,
    admission: Admission,
    opened: AsyncExitStack,
) -> Runtime:
    """Open everything, in the order in which later parts need earlier ones; what is opened is
    closed by the stack, the other way round.
    """
    keyring = Keyring.open(settings.secret_file)
    tallies = Tallies(metrics.drift.on_dropped)
    served = _served(settings, metrics, keyring, tallies)
    await asyncio.to_thread(served.refresh)
    log_of_settings = evidence_log(settings, observer=CommitCounts(metrics))
    evidence = await opened.enter_async_context(log_of_settings)
    spool = SpoolLimits(settings.spool, settings.spool_max_bytes)
    await evidence.start_spooling(Spooling(spool, observer=SpoolCounts(metrics)))
    log = Ledger(evidence.store, keyring)
    sequencing = Sequencing.of(evidence.store, log.signer, settings.data_dir, LogCounts(metrics))
    # After everything that stores has ended, that of our own worker too.
    opened.push_async_callback(asyncio.to_thread, sequencing.close)
    drift = await opened.enter_async_context(keeping(evidence.store, tallies))
    queue, exposed = await _open_queue(settings, metrics, opened)
    delivery = Delivery(
        *(queue, evidence, metrics, settings.max_queue, admission),
        quality=QualitySampling(
            queue, keyring, settings.quality_share, settings.quality_per_minute
        ),
    )
    limits, quotas = _limits(settings), _quotas(settings)
    service = PredictService(served, evidence, keyring, delivery, limits, quotas)
    opened.callback(service.close)
    return Runtime(
        *(settings, metrics, exposed, served, evidence, delivery, service, authenticator),
        ledger=log,
        sequencing=sequencing,
        drift=drift,
    )


def _served(
    settings: Settings, metrics: Metrics, keyring: Keyring, tallies: Tallies
) -> ServedModels:
    policies = None if settings.policy_file is None else Policies(settings.policy_file, keyring)
    return ServedModels(
        Registry(settings.registry),
        metrics,
        default=settings.model,
        retention_days=settings.retention_days,
        policies=policies,
        tallies=tallies,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_instances, settings.inline_budget_seconds, settings.wait_seconds)


def _quotas(settings: Settings) -> Quotas:
    return Quotas(
        settings.predict_quota_per_minute,
        settings.explain_quota_per_minute,
        settings.recourse_quota_per_minute,
    )


async def _open_queue(
    settings: Settings, metrics: Metrics, opened: AsyncExitStack
) -> tuple[JobQueue, Exposed]:
    """The queue of the settings, or one of our own with its worker; and what /metrics shows."""
    url = settings.redis_url
    exposed: Exposed = metrics.registry
    if url is None:
        embedded = await Embedded.start(settings)
        opened.push_async_callback(embedded.stop)
        url, exposed = embedded.redis_url, JointRegistry(metrics.registry, embedded.metrics)
    queue = await JobQueue.open(url, max_queue=settings.max_queue)
    opened.push_async_callback(queue.close)
    QueueMetrics(metrics.registry).follow(queue.number)
    return queue, exposed


@asynccontextmanager
async def _running(runtime: Runtime) -> AsyncIterator[None]:
    """Follow registry, keys and pending records until the end."""
    look_rarely()
    pass_over_what_stays()
    outbox = Outbox(
        runtime.evidence,
        runtime.delivery.queue,
        runtime.metrics,
        timedelta(seconds=runtime.settings.explanation_deadline_seconds),
    )
    runtime.evidence.call_when_drained(outbox.look_back)
    if runtime.sequencing is not None:
        runtime.sequencing.start()
    purges = PurgeJob(runtime.evidence, runtime.metrics)
    drift = DriftWatch.of(runtime.evidence, runtime.models, runtime.metrics.drift, runtime.settings)
    works = (
        *(_follow(runtime), outbox.run(), purges.run(), runtime.accesses.run()),
        *(drift.run(), _performance(runtime, drift).run()),
    )
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        runtime.is_stopping = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runtime.replays.children.close()
        with suppress(EvidenceError):
            await runtime.accesses.tell_refusals()


def _performance(runtime: Runtime, drift: DriftWatch) -> PerformanceWatch:
    settings = runtime.settings
    url, key = settings.retrain_webhook_url, runtime.predicting.keyring.key("", WEBHOOK_KEYS)
    webhook = None if url is None else Webhook(url, key)
    shown = runtime.metrics.performance
    return PerformanceWatch(runtime.evidence, runtime.models, shown, drift, settings, webhook)


async def _follow(runtime: Runtime) -> None:
    """Each second: promotions in the registry, changes of the keys file."""
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        for refresh in (runtime.models.refresh, runtime.authenticator.refresh):
            try:
                await asyncio.to_thread(refresh)
            except Exception as error:  # noqa: BLE001 - without it revoked keys would go on working
                log.error("refresh_failed", place=place_of(error))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, as problems."""
    assert isinstance(error, HTTPException)
    kinds: dict[int, type[ServiceError]] = {
        NOT_FOUND: NotFoundError,
        METHOD_NOT_ALLOWED: MethodNotAllowedError,
    }
    problem = kinds.get(error.status_code, InvalidRequestError)()
    response = await _refused(request, problem)
    for name, value in (error.headers or {}).items():
        response.headers[name] = _allowed(request) if name == "Allow" else value
    return response


def _allowed(request: Request) -> str:
    """The methods of all routes of this path; Starlette names those of the first one only."""
    found = {
        method
        for route in iter_route_contexts(request.app.routes)
        if compile_path(route.path or "")[0].match(request.url.path)
        for method in route.methods or ()
    }
    return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """A query parameter that does not fit; the value itself is not repeated."""
    assert isinstance(error, RequestValidationError)
    violations = [
        Violation(
            pointer=f"?{item['loc'][-1]}",
            detail="does not fit this parameter",
            code=item["type"],
        )
        for item in error.errors()
    ]
    problem = InvalidRequestError("see errors", errors=violations)
    return await _refused(request, problem)


async def _refused(request: Request, error: ServiceError) -> Response:
    return await refusal_for(error, request.scope)
