"""The OpenAPI document with the columns of the models being served."""

import re
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from schemas import Problem, answer_schema, document_schema, predict_request_schema
from schemas.counterfactuals import recourse_request_schema
from schemas.inference import ProtocolError
from service.errors import NotFoundError
from service.facades import Call, documented_calls
from service.http import PROBLEM_TYPE, REQUEST_ID, is_of_protocol
from service.registry import RegisteredModel
from service.registry.personal import shown_schema
from service.served import ServedModel
from service.serving import ServedModels

KEY = "api_key"
PROBLEMS = {
    "400": "Not strict JSON, a malformed header, or no HTTP at all",
    "401": "A valid API key is needed",
    "403": "The key lacks the scope, or the record is in quarantine",
    "404": "No such path, model or record",
    "405": "Another method than Allow names",
    "408": "The request did not arrive in time",
    "409": "The request ID names another request, or the same one is still in flight; or it is "
    "too late to call off, or too early for a proof; or another version serves now",
    "410": "The record was erased or has expired; its header is in the problem",
    "413": "Body too large",
    "415": "Not application/json",
    "421": "A host name this service does not answer to",
    "422": "The content does not fit the model's schema",
    "429": "The key's quota is used up; the same request passes after Retry-After",
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
    "description": "RFC 7240: how long to wait for an explanation that a worker computes: `wait=N` "
    "up to N seconds (at most 30), `respond-async` not at all.",
}
TRACE_PARAMETER: dict[str, object] = {
    "name": "traceparent",
    "in": "header",
    "schema": {"type": "string"},
    "description": "W3C Trace Context; a malformed one counts as absent.",
}
TEXT = {"type": "string"}
HEADERS: dict[str, dict[str, object]] = {
    "X-Request-ID": {
        "schema": REQUEST_ID_PARAMETER["schema"],
        "description": "The one that was sent, or a new one; the record's key.",
    },
    "Evidence": {
        "schema": {"type": "string", "enum": ["stored", "spooled", "none"]},
        "description": "Where the record was durable before the answer left: in the store, or, of "
        "a model of best effort, in a spool on disk; `none`: it was kept nowhere.",
    },
    "Server-Timing": {
        "schema": TEXT,
        "description": "Milliseconds of each phase; not of a replay.",
    },
    "Idempotent-Replay": {
        "schema": {"type": "string", "enum": ["true"]},
        "description": "These are the first answer's bytes, sent again.",
    },
    "Location": {
        "schema": {"type": "string", "format": "uri-reference"},
        "description": "Where a pending explanation will be.",
    },
    "Preference-Applied": {
        "schema": TEXT,
        "description": "RFC 7240: what of Prefer was heeded, where a worker computes.",
    },
    "Retry-After": {
        "schema": {"type": "integer", "minimum": 0},
        "description": "Seconds; absent where the same request would be refused again.",
    },
}
ANSWER_HEADERS = tuple(name for name in HEADERS if name not in ("X-Request-ID", "Retry-After"))
RETRIED = ("409", "429", "503")
BEFORE_THE_PATH = ("408", "431")
"""Refused before it is known which protocol is spoken."""

PROTOCOL_ERROR = {"$ref": "#/components/schemas/ProtocolError"}


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
        schema = _request_schema(served.model, {"instances": [dict(served.model.sample)]})
        for call in documented_calls(served.model, schema):
            paths[call.path] = {"post": _operation_of_call(call)}
    _describe_recourse(paths["/counterfactuals"]["post"], models)
    with suppress(NotFoundError):
        paths["/predict"] = {"post": _operation(models.resolve(None), None)}
    for path, operations in paths.items():
        for operation in operations.values():
            _describe_problems(operation, is_of_protocol=is_of_protocol(path))
            _describe_request_id(operation)
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
    components["headers"] = HEADERS
    schemas = components["schemas"]
    schemas["Problem"] = document_schema(Problem)
    schemas["ProtocolError"] = document_schema(ProtocolError)
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's, which is never sent
        schemas.pop(name, None)


def _operation(served: ServedModel, name: str | None) -> dict[str, Any]:
    model = served.model
    example: dict[str, object] = {"instances": [dict(model.sample)]}
    return {
        "tags": ["predict"],
        "summary": f"Predict with {model.name} version {model.version}",
        "operationId": "predict" if name is None else f"predict_{name}",
        "description": "With explain=true (which needs the scope explain as well) the attributions "
        "are in the answer or, where they are too heavy to wait for, `pending`, with a Location.",
        "security": [{KEY: ["predict"]}],
        "parameters": _parameters(len(model.schema.columns)),
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _request_schema(model, example),
                    "example": example,
                }
            },
        },
        "responses": {
            "200": {
                "description": "The prediction, explained if asked, stored before it left",
                "headers": _headers(*ANSWER_HEADERS),
                "content": {"application/json": {"schema": answer_schema()}},
            }
        },
    }


def _operation_of_call(call: Call) -> dict[str, Any]:
    """Of another protocol; the same headers as POST /predict."""
    parameters: list[dict[str, object]] = [REQUEST_ID_PARAMETER, PREFER_PARAMETER, TRACE_PARAMETER]
    if call.version is not None:
        serving = {"type": "string", "enum": [str(call.version)]}
        parameters.append({"name": "version", "in": "path", "required": True, "schema": serving})
    request = {"application/json": {"schema": call.request, "example": call.example}}
    return {
        "tags": [call.tag],
        "summary": call.summary,
        "operationId": re.sub(r"\W+", "_", call.path.strip("/")),
        "description": call.description,
        "security": [{KEY: list(call.scopes)}],
        "parameters": parameters,
        "requestBody": {"required": True, "content": request},
        "responses": {
            "200": {
                "description": "What POST /predict answers, in this protocol's words",
                "headers": _headers(*ANSWER_HEADERS),
                "content": {"application/json": {"schema": call.answer}},
            }
        },
    }


def _describe_recourse(operation: dict[str, Any], models: ServedModels) -> None:
    """Its body, with the columns of the models being served."""
    instances = {}
    for name, served in models.all.items():
        schema = _request_schema(served.model, {})
        instances[name] = schema["properties"]["instances"]["items"]
    content = operation["requestBody"]["content"]["application/json"]
    content["schema"] = recourse_request_schema(instances)


def _request_schema(model: RegisteredModel, example: dict[str, object]) -> dict[str, Any]:
    schema: dict[str, Any] = predict_request_schema(model.schema, example)
    instances = schema["properties"]["instances"]
    instances["items"] = shown_schema(instances["items"], model.personal_levels)
    return schema


def _parameters(n_columns: int) -> list[dict[str, object]]:
    return [
        {
            "name": "explain",
            "in": "query",
            "schema": {"type": "boolean", "default": False},
            "description": "Whether to explain.",
        },
        {
            "name": "top",
            "in": "query",
            "schema": {"type": "integer", "minimum": 0, "maximum": n_columns},
            "description": "How many of the strongest entries to list per instance (default 5).",
        },
        REQUEST_ID_PARAMETER,
        PREFER_PARAMETER,
        TRACE_PARAMETER,
    ]


def _headers(*names: str) -> dict[str, dict[str, str]]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _describe_problems(operation: dict[str, Any], *, is_of_protocol: bool) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own shape, which is never sent
    for status, text in PROBLEMS.items():
        response = responses.setdefault(status, {"description": text})
        content = response.setdefault("content", {})
        if is_of_protocol and status not in BEFORE_THE_PATH:
            content.setdefault("application/json", {"schema": PROTOCOL_ERROR})
        else:
            content[PROBLEM_TYPE] = {"schema": {"$ref": "#/components/schemas/Problem"}}
        if is_of_protocol and status == "400":  # the path may be unknown, or not
            content[PROBLEM_TYPE] = {"schema": {"$ref": "#/components/schemas/Problem"}}
        if status in RETRIED:
            response.setdefault("headers", {}).update(_headers("Retry-After"))


def _describe_request_id(operation: dict[str, Any]) -> None:
    for response in operation["responses"].values():
        response.setdefault("headers", {}).update(_headers("X-Request-ID"))
