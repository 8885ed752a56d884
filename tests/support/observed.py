"""Names of metrics in expressions."""

import re

AWAITED: set[str] = set()
"""Named by the contract and not measured yet; a test refuses those that are."""

AWAITED_COMMANDS: set[str] = set()
"""Likewise, of the commands the runbook names."""

_STRINGS = re.compile(r'"[^"]*"')
_SERIES = re.compile(r"\b(?:explain|http_server)_\w+|\bslo:\w+:\w+")
_SUFFIX = re.compile(r"_(total|bucket|count|sum)$")


def series_in(expression: str) -> set[str]:
    """Names of the series that an expression reads, ours and recorded ones."""
    return set(_SERIES.findall(_STRINGS.sub('""', expression)))


def families_in(expression: str) -> set[str]:
    """As `series_in`, without the suffixes of counters and histograms."""
    return {_SUFFIX.sub("", name) for name in series_in(expression)}
