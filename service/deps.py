"""What routes ask for: the runtime, and a caller with the scope the route needs."""

from collections.abc import Awaitable, Callable
from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from service.auth import Caller, Scope
from service.errors import ForbiddenError, NotFoundError
from service.http import REQUEST_ID, RequestContext, context_of
from service.runtime import Runtime

EVIDENCE_SCOPES: frozenset[Scope] = frozenset({"audit", "admin"})
"""A refusal of these is written into the access log."""


async def runtime_of(request: Request) -> Runtime:
    """The running service."""
    return cast("Runtime", request.app.state.runtime)


async def request_context(request: Request) -> RequestContext:
    """What the outermost layer found out about this request."""
    return context_of(request.scope)


RuntimeDep = Annotated[Runtime, Depends(runtime_of)]
ContextDep = Annotated[RequestContext, Depends(request_context)]

# Described, not checked, by FastAPI: what cannot be an ID is as unknown as any other.
RequestId = Annotated[str, Path(json_schema_extra={"pattern": f"^{REQUEST_ID.pattern}$"})]


async def caller_of(runtime: RuntimeDep, context: ContextDep) -> Caller:
    """The authenticated principal."""
    return runtime.authenticator.caller(context.header(b"authorization"))


caller_of.scope = None  # type: ignore[attr-defined]  # a key, whatever its scopes
CallerDep = Annotated[Caller, Depends(caller_of)]


def requires(scope: Scope) -> Callable[[CallerDep, RuntimeDep], Awaitable[Caller]]:
    """A dependency that lets only callers with this scope through; OpenAPI reads its `scope`."""

    async def check(caller: CallerDep, runtime: RuntimeDep) -> Caller:
        _require(scope, caller, runtime)
        return caller

    check.scope = scope  # type: ignore[attr-defined]
    return check


def _require(scope: Scope, caller: Caller, runtime: Runtime) -> None:
    try:
        caller.require(scope)
    except ForbiddenError:
        if scope in EVIDENCE_SCOPES:
            runtime.accesses.refused(caller, ForbiddenError.status)
        raise


Tenant = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Which of the key's tenants to read in; by default its first one.",
    ),
]


async def reader_of(caller: CallerDep, runtime: RuntimeDep, tenant: Tenant = None) -> Caller:
    """The principal, looking into the tenant named by the query; NotFoundError if not his."""
    if tenant is None:
        return caller
    try:
        return caller.at(tenant)
    except NotFoundError:
        runtime.accesses.refused(caller, NotFoundError.status)
        raise


reader_of.scope = None  # type: ignore[attr-defined]
ReaderDep = Annotated[Caller, Depends(reader_of)]


def reads(scope: Scope) -> Callable[[CallerDep, RuntimeDep, Tenant], Awaitable[Caller]]:
    """Like `requires`, for routes that read in any of the caller's tenants."""

    async def check(caller: CallerDep, runtime: RuntimeDep, tenant: Tenant = None) -> Caller:
        _require(scope, caller, runtime)
        return await reader_of(caller, runtime, tenant)

    check.scope = scope  # type: ignore[attr-defined]
    return check
