"""The OpenAPI document with the columns of the models being served, and a page to read it."""

import html
from contextlib import suppress
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from schemas import Problem, answer_schema, document_schema, predict_request_schema
from service.errors import NotFoundError
from service.serving import ServedModel, ServedModels

PROBLEMS = {
    "400": "Not strict JSON, or a malformed header",
    "401": "A valid API key is needed",
    "403": "The key lacks the scope",
    "404": "No such model",
    "409": "The request ID names another request, or the same one is still in flight",
    "413": "Body too large",
    "415": "Not application/json",
    "422": "The content does not fit the model's schema",
    "503": "The evidence store is unavailable; retry after Retry-After",
}
PREDICT_PARAMETERS = [
    {
        "name": "explain",
        "in": "query",
        "schema": {"type": "boolean", "default": False},
        "description": "Attributions inline.",
    },
    {
        "name": "top",
        "in": "query",
        "schema": {"type": "integer", "minimum": 0},
        "description": "How many of the strongest entries to list per instance (default 5).",
    },
    {
        "name": "X-Request-ID",
        "in": "header",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{8,64}$"},
        "description": "Idempotency key; the same ID and content replay the first answer.",
    },
]


def openapi_document(app: FastAPI, models: ServedModels) -> dict[str, Any]:
    """Made anew at each call: the models change while the service runs."""
    document = get_openapi(
        title="explaind",
        version=app.version,
        description="Predictions with exact attributions, each stored and fetched by request ID.",
        routes=app.routes,
    )
    paths = document["paths"]
    for name, served in models.all.items():
        paths[f"/models/{name}/predict"] = {"post": _operation(served, name)}
    with suppress(NotFoundError):
        paths["/predict"] = {"post": _operation(models.resolve(None), None)}
    for path in paths.values():
        for operation in path.values():
            _describe_problems(operation)
    return document


def _operation(served: ServedModel, name: str | None) -> dict[str, Any]:
    model = served.model
    example: dict[str, object] = {"instances": [dict(model.sample)]}
    return {
        "tags": ["predict"],
        "summary": f"Predict with {model.name} version {model.version}",
        "operationId": "predict" if name is None else f"predict_{name}",
        "parameters": PREDICT_PARAMETERS,
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


def _describe_problems(operation: dict[str, Any]) -> None:
    schema = document_schema(Problem)
    for status, text in PROBLEMS.items():
        operation["responses"][status] = {
            "description": text,
            "content": {"application/problem+json": {"schema": schema}},
        }


def docs_page(document: dict[str, Any]) -> str:
    """A page without scripts or foreign hosts: each call, and a curl line that works."""
    sections = []
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            sections.append(_section(path, method, operation))
    return PAGE.replace("{sections}", "\n".join(sections))


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    text = html.escape(operation.get("description") or operation.get("summary") or "")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    sample = ""
    if "example" in body:
        data = orjson.dumps(body["example"]).decode().replace("'", "'\\''")
        line = (
            f"curl -s 'http://127.0.0.1:8000{path}?explain=true' "
            f"-H 'Content-Type: application/json' -d '{data}'"
        )
        sample = f"<pre>{html.escape(line)}</pre>"
    title = html.escape(f"{method.upper()} {path}")
    return f"<section><h2><code>{title}</code></h2><p>{text}</p>{sample}</section>"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>explaind API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}
h2{font-size:1.1rem;margin-top:2rem}pre{white-space:pre-wrap;word-break:break-word;
background:#8881;padding:.8rem;border-radius:.4rem}:root{color-scheme:light dark}
</style></head><body><h1>explaind API</h1>
<p>The machine-readable document is <a href="/openapi.json">/openapi.json</a>.</p>
{sections}</body></html>"""
