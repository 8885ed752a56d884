"""The OpenAPI document with the columns of the models being served."""

from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from schemas import Problem, answer_schema, document_schema, predict_request_schema
from service.errors import NotFoundError
from service.http import PROBLEM_TYPE, REQUEST_ID
from service.serving import ServedModel, ServedModels

KEY = "api_key"
PROBLEMS = {
    "400": "Not strict JSON, a malformed header, or no HTTP at all",
    "401": "A valid API key is needed",
    "403": "The key lacks the scope",
    "404": "No such path, model or record",
    "405": "Another method than Allow names",
    "408": "The request did not arrive in time",
    "409": "The request ID names another request, or the same one is still in flight; or it is "
    "too late to call off",
    "413": "Body too large",
    "415": "Not application/json",
    "421": "A host name this service does not answer to",
    "422": "The content does not fit the model's schema",
    "431": "The head of the request is too large",
    "503": "The evidence store is unavailable, or the queue full; retry after Retry-After",
}
REQUEST_ID_PARAMETER: dict[str, object] = {
    "name": "X-Request-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"},
    "description": "Idempotency key; the same ID and content replay the first answer.",
}
PREFER_PARAMETER: dict[str, object] = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "RFC 7240: `wait=N` waits up to N seconds (at most 30) for a pending explanation"
    " to be final.",
}


def openapi_document(app: FastAPI, models: ServedModels, *, needs_keys: bool) -> dict[str, Any]:
    """Made anew at each call: the models change while the service runs.

    Where keys are needed, each operation's `security` names the scope its key must have.
    """
    document = get_openapi(
        title="explaind",
        version=app.version,
        description="Predictions with exact attributions, each stored and fetched by request ID.",
        routes=app.routes,
    )
    paths = document["paths"]
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        own = {method.lower() for method in route.methods or ()}
        operations = paths.get(route.path, {})
        for operation in (operations[method] for method in own & operations.keys()):
            operation["security"] = _security(_calls(dependant))
    for name, served in models.all.items():
        paths[f"/models/{name}/predict"] = {"post": _operation(served, name)}
    with suppress(NotFoundError):
        paths["/predict"] = {"post": _operation(models.resolve(None), None)}
    for path in paths.values():
        for operation in path.values():
            _describe_problems(operation)
            if not needs_keys:
                del operation["security"]
    _add_components(document["components"], needs_keys=needs_keys)
    return document


def _calls(dependant: Dependant | None) -> list[object]:
    """Every dependency of a route, and theirs."""
    inner = [] if dependant is None else dependant.dependencies
    return [call for part in inner for call in (part.call, *_calls(part))]


def _security(calls: list[object]) -> list[dict[str, list[str]]]:
    """From what the dependencies of `service.deps` say they ask of the caller."""
    asked = [call.scope for call in calls if hasattr(call, "scope")]
    return [{KEY: [scope for scope in asked if scope is not None]}] if asked else []


def _add_components(components: dict[str, Any], *, needs_keys: bool) -> None:
    if needs_keys:
        components["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer"}}
    schemas = components["schemas"]
    schemas["Problem"] = document_schema(Problem)
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's, which is never sent
        schemas.pop(name, None)


def _operation(served: ServedModel, name: str | None) -> dict[str, Any]:
    model = served.model
    example: dict[str, object] = {"instances": [dict(model.sample)]}
    return {
        "tags": ["predict"],
        "summary": f"Predict with {model.name} version {model.version}",
        "operationId": "predict" if name is None else f"predict_{name}",
        "description": "The scope explain is needed as well where explain=true.",
        "security": [{KEY: ["predict"]}],
        "parameters": _parameters(len(model.schema.columns)),
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": predict_request_schema(model.schema, example),
                    "example": example,
                }
            },
        },
        "responses": {
            "200": {
                "description": "The prediction, explained if asked, stored before it left",
                "content": {"application/json": {"schema": answer_schema()}},
            }
        },
    }


def _parameters(n_columns: int) -> list[dict[str, object]]:
    return [
        {
            "name": "explain",
            "in": "query",
            "schema": {"type": "boolean", "default": False},
            "description": "Attributions inline.",
        },
        {
            "name": "top",
            "in": "query",
            "schema": {"type": "integer", "minimum": 0, "maximum": n_columns},
            "description": "How many of the strongest entries to list per instance (default 5).",
        },
        REQUEST_ID_PARAMETER,
    ]


def _describe_problems(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own shape, which is never sent
    for status, text in PROBLEMS.items():
        response = responses.setdefault(status, {"description": text})
        content = response.setdefault("content", {})
        content[PROBLEM_TYPE] = {"schema": {"$ref": "#/components/schemas/Problem"}}
