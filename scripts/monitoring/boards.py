"""Dashboards in Grafana's format."""

import json
from typing import Any

from scripts.monitoring.definitions import Dashboard, Definitions, Panel

SCHEMA_VERSION = 39
"""Of Grafana 10.4; later ones read it."""

WIDTH, HEIGHT, ROW = 8, 8, 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CALCULATED = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def rendered(definitions: Definitions, dashboard: Dashboard) -> str:
    """The dashboard as JSON, the same for the same definitions."""
    return json.dumps(board(definitions, dashboard), indent=2, ensure_ascii=False) + "\n"


def board(definitions: Definitions, dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": f"{definitions.service}-{dashboard.name}",
        "title": dashboard.title,
        "tags": [definitions.service],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": dashboard.refresh,
        "time": {"from": f"now-{dashboard.range}", "to": "now"},
        "annotations": {"list": []},
        "links": [_link(definitions)],
        "templating": {"list": _variables()},
        "panels": [_panel(panel, number) for number, panel in enumerate(dashboard.panels)],
    }


def _link(definitions: Definitions) -> dict[str, Any]:
    return {
        "title": "Other dashboards",
        "type": "dashboards",
        "tags": [definitions.service],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "model",
            "label": "Model",
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": "label_values(explain_model_info, model)", "refId": "model"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    per_row = ROW // WIDTH
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.says,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": {
            "x": number % per_row * WIDTH,
            "y": number // per_row * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"reduceOptions": CALCULATED} if panel.kind in ("stat", "bargauge") else {},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": panel.kind != "timeseries",
                "range": panel.kind == "timeseries",
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }
