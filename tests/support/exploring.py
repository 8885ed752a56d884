"""Requests that the OpenAPI document allows, or forbids, against the service that serves it."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.allow_header_conformance,
]


def explore(
    url: str, *, examples: int, only: tuple[str, ...] = ("/",), skip: tuple[str, ...] = ()
) -> int:
    """Send generated cases to the operations of the live document whose paths begin so; how many
    were sent.
    """
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    schema.config.base_url = url
    sent = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if not operation.path.startswith(only) or operation.path.startswith(skip):
            continue
        sent += explore_operation(operation, GenerationMode.POSITIVE, examples)
        if {"parameters", "requestBody"} & operation.definition.raw.keys():
            sent += explore_operation(operation, GenerationMode.NEGATIVE, examples)
    return sent


def _acceptance(case: schemathesis.Case) -> list[Any]:
    """Schemas cannot say that subjects and labels are as many as instances, which cursors we made,
    or that tensors are as large as they say.
    """
    names = set(case.body) if isinstance(case.body, dict) else set()
    is_exempt = bool(names & {"subjects", "labels", "inputs"}) or "cursor" in case.query
    return [] if is_exempt else [checks.positive_data_acceptance]


def explore_operation(operation: Any, mode: GenerationMode, examples: int) -> int:
    sent = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        nonlocal sent
        sent += 1
        case.call_and_validate(checks=[*CHECKS, *_acceptance(case)])

    send()
    return sent
