"""Names of metrics in expressions."""

import re

SLOW_TO_COME = {
    "explain_attribution_stability_ratio",
    "explain_fidelity_ratio",
    "explain_drift_alarm",
    "explain_drift_psi",
    "explain_drift_ks_statistic",
    "explain_drift_ndcg",
    "explain_drift_out_of_range_ratio",
    "explain_drift_unseen_ratio",
    "explain_drift_rows",
    "explain_drift_last_run_timestamp_seconds",
    "explain_performance_auc",
    "explain_performance_rmse",
    "explain_retrain_needed",
}
"""Sampled, or told of a thousand rows once a minute: no short run has numbers of them."""

_STRINGS = re.compile(r'"[^"]*"')
_SERIES = re.compile(r"\b(?:explain|http_server)_\w+|\bslo:\w+:\w+")
_SUFFIX = re.compile(r"_(total|bucket|count|sum)$")


def series_in(expression: str) -> set[str]:
    """Names of the series that an expression reads, ours and recorded ones."""
    return set(_SERIES.findall(_STRINGS.sub('""', expression)))


def families_in(expression: str) -> set[str]:
    """As `series_in`, without the suffixes of counters and histograms."""
    return {_SUFFIX.sub("", name) for name in series_in(expression)}
