"""The gauges of drift."""

from prometheus_client import CollectorRegistry, generate_latest

from service.drift_metrics import MOST_FEATURES, OTHER, DriftMetrics, Measured, ModelDrift


def psi_of(*values: float, kind: str = "feature") -> list[Measured]:
    return [Measured("explain_drift_psi", kind, f"x{i}", value) for i, value in enumerate(values)]


def shown(metrics: DriftMetrics, measured: list[Measured]) -> dict[tuple[str, str], float]:
    metrics.show({"m": ModelDrift(1.0, {}, measured)})
    family = next(f for f in metrics.collect() if f.name == "explain_drift_psi")
    return {(s.labels["kind"], s.labels["feature"]): s.value for s in family.samples}


def test_of_a_wide_model_the_first_columns_and_the_largest_other_are_exported() -> None:
    metrics = DriftMetrics(CollectorRegistry())
    values = [0.0] * MOST_FEATURES + [0.1, 0.7, 0.3]
    found = shown(metrics, psi_of(*values) + psi_of(0.2, kind="attribution"))
    assert len(found) == MOST_FEATURES + 2
    assert found["feature", OTHER] == 0.7
    assert found["attribution", "x0"] == 0.2


def test_as_many_columns_as_there_is_room_for_have_no_other() -> None:
    found = shown(DriftMetrics(CollectorRegistry()), psi_of(*[0.0] * MOST_FEATURES))
    assert ("feature", OTHER) not in found


def test_a_look_replaces_the_last_one_as_a_whole() -> None:
    registry = CollectorRegistry()
    metrics = DriftMetrics(registry)
    shown(metrics, psi_of(0.9))
    metrics.show({})
    assert b"explain_drift_psi{" not in generate_latest(registry)
    assert b"# TYPE explain_drift_psi gauge" in generate_latest(registry)


def test_dropped_rows_are_counted() -> None:
    registry = CollectorRegistry()
    DriftMetrics(registry).on_dropped(7)
    assert b"explain_drift_dropped_rows_total 7.0" in generate_latest(registry)
