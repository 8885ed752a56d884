"""Service level indicators of one model, from what one process counts."""

from service.indicators import indicators_of
from service.metrics import Metrics


def test_each_indicator_counts_its_own_model_lane_and_outcomes() -> None:
    metrics = Metrics()
    for outcome, n in {"ok": 8, "error": 2, "invalid": 5}.items():
        metrics.predictions.labels("credit", outcome).inc(n)
    metrics.predictions.labels("other", "error").inc(100)
    metrics.wanted.labels("credit", "serving", "inline").inc(7)
    metrics.wanted.labels("credit", "canary", "inline").inc(50)
    for outcome, n in {"served": 4, "failed": 1, "rejected": 2}.items():
        metrics.explanations.labels("credit", "serving", "inline", outcome).inc(n)
    for seconds in (0.1, 0.2, 0.3):
        metrics.duration.labels("credit", "tree", "inline", "serving").observe(seconds)
    metrics.duration.labels("credit", "permutation", "queued", "serving").observe(400.0)
    metrics.checks.labels("credit", "tree", "ok").inc(3)
    metrics.checks.labels("credit", "tree", "failed").inc(1)
    assert [tuple(each) for each in indicators_of(metrics, "credit")] == [
        ("Valid requests that were answered", 8, 10),
        ("Explanations in the answer that did not fail", 4, 7),
        ("Explanations in the answer within 200 ms", 2, 3),
        ("Explanations by a worker within 300 s", 0, 1),
        ("Explanations that add up to the output", 3, 4),
    ]


def test_what_was_not_asked_for_is_no_indicator() -> None:
    metrics = Metrics()
    metrics.bind("credit", "tree")
    assert indicators_of(metrics, "credit") == []
