"""Every file that is made from the definitions, by its place in the repository."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.monitoring import boards, handbook
from scripts.monitoring.cases import alert_tests, promise_tests
from scripts.monitoring.definitions import Clock, Definitions
from scripts.monitoring.rules import Rules

HEAD = "---\n# Made from deploy/slos.yml by `python -m scripts.monitoring`.\n"
RULES = "deploy/prometheus/rules.yml"
TESTS = {
    "deploy/prometheus/alerts.test.yml": alert_tests,
    "deploy/prometheus/promises.test.yml": promise_tests,
}
KUBERNETES_RULES = "deploy/kubernetes/base/prometheusrule.yaml"
RUNBOOK = "docs/runbook.md"
DASHBOARDS = "deploy/grafana/dashboards"


def made(definitions: Definitions) -> dict[str, str]:
    """Contents by path; the same for the same definitions."""
    groups = {"groups": Rules(definitions, Clock()).groups()}
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": definitions.service},
        "spec": groups,
    }
    return {
        RULES: _yaml(groups),
        **{place: _yaml(tests(definitions)) for place, tests in TESTS.items()},
        KUBERNETES_RULES: _yaml(resource),
        RUNBOOK: handbook.rendered(definitions),
        **{
            f"{DASHBOARDS}/{board.name}.json": boards.rendered(definitions, board)
            for board in definitions.dashboards
        },
    }


def stale(texts: Mapping[str, str], root: Path) -> list[str]:
    """The places where something else stands, or nothing."""
    return [
        place
        for place, text in texts.items()
        if not (root / place).exists() or (root / place).read_text() != text
    ]


def shortened_rules(definitions: Definitions, factor: float) -> str:
    """The rules with all their windows multiplied by a factor, for tests in a hurry."""
    return _yaml({"groups": Rules(definitions, Clock(factor)).groups()})


class _Dumper(yaml.SafeDumper):
    """Lists indented under their keys, expressions of several lines as such, nothing shared."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _yaml(content: Any) -> str:  # noqa: ANN401
    return HEAD + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
