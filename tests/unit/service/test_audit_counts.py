"""What becomes of evidence, in the metrics."""

import pytest

from service.audit_counts import SpoolCounts
from service.metrics import Metrics


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [("drained", 4), ("twin", 3), ("refused", 2), ("erased", 1), ("damaged", 1), ("none", 1)],
)
def test_what_becomes_of_spooled_events_is_counted(outcome: str, expected: int) -> None:
    metrics = Metrics()
    counts = SpoolCounts(metrics)
    labels = {"backend": "spool", "outcome": outcome}
    assert metrics.registry.get_sample_value("explain_audit_writes_total", labels) == 0
    counts.on_drained(4, 3, 2, 1)
    counts.on_damaged()
    counts.on_not_kept()
    assert metrics.registry.get_sample_value("explain_audit_writes_total", labels) == expected
