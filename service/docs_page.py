"""The OpenAPI document as a page: no scripts, nothing loaded from elsewhere."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

MOST_LEVELS = 12


def docs_page(document: Mapping[str, Any], *, base_url: str) -> str:
    """Each call with its parameters and columns, predict first, and a curl line that works."""
    calls = [
        (path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    calls.sort(key=lambda call: (call[1] != "post", call[0]))
    sections = "".join(_section(base_url, *call) for call in calls)
    return PAGE.replace("{sections}", sections)


def _section(base_url: str, path: str, method: str, operation: Mapping[str, Any]) -> str:
    summary = html.escape(operation.get("summary", ""))
    description = html.escape(operation.get("description", ""))
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return (
        f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>"
        f"<p><b>{summary}.</b> {description}</p>"
        + _table("Parameters", _parameter_rows(operation.get("parameters", ())))
        + _table("Columns of an instance", _column_rows(content.get("schema", {})))
        + _example(base_url + path, content.get("example"))
        + "</section>"
    )


def _parameter_rows(parameters: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - OpenAPI's own
    for parameter in parameters:
        text = parameter.get("description") or parameter["schema"].get("type", "")
        yield parameter["name"], f"{parameter['in']}. {text}"


def _column_rows(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    items = schema.get("properties", {}).get("instances", {}).get("items", {})
    required = items.get("required", ())
    for name, column in items.get("properties", {}).items():
        yield name, _kind(column) + ("" if name in required else ", may be missing")


def _kind(column: Mapping[str, Any]) -> str:
    choices = column.get("anyOf", [column])
    levels = [level for choice in choices for level in choice.get("enum", ())]
    if levels:
        shown = ", ".join(map(str, levels[:MOST_LEVELS]))
        return f"one of {shown}" + (", ..." if len(levels) > MOST_LEVELS else "")
    kinds = [choice.get("type") for choice in choices]
    return " or ".join(str(kind) for kind in kinds if kind not in (None, "null"))


def _table(title: str, rows: Iterator[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th scope=row><code>{html.escape(name)}</code></th><td>{html.escape(text)}</td></tr>"
        for name, text in rows
    )
    return f"<table><caption>{title}</caption>{cells}</table>" if cells else ""


def _example(url: str, example: object) -> str:
    if example is None:
        return ""
    data = orjson.dumps(example).decode().replace("'", "'\\''")
    query = "?explain=true" if url.endswith("/predict") else ""
    line = f"curl -s '{url}{query}' -H 'Content-Type: application/json' -d '{data}'"
    return f"<pre>{html.escape(line)}</pre>"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>explaind API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
section{border-top:1px solid #8884;margin-top:2rem}h2{font-size:1.1rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8882;padding:.8rem;border-radius:.4rem}
table{border-collapse:collapse;margin:.8rem 0}caption{text-align:left;font-weight:600}
th,td{text-align:left;vertical-align:top;padding:.15rem 1.2rem .15rem 0;font-weight:400}
</style></head><body><h1>explaind API</h1>
<p>For machines: <a href="/openapi.json">/openapi.json</a>.</p>
{sections}</body></html>"""
