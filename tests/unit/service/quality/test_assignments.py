"""What a worker counts of a measured explanation."""

from dataclasses import replace
from typing import Any

import pytest
from jobs import job

from service.compute import Finished
from service.metrics import Metrics
from service.quality import Finding, Findings, Sample
from service.worker.qualities import QualityAssignment
from service.worker.work import Ending, GivenUp

JOB = replace(job(), kind="quality")
SAMPLE = Sample(
    model="credit",
    version=3,
    digest="",
    method="linear",
    background_digest="",
    seed=1,
    fed=[1.0],
    values=[[1.0]],
    outputs=[1.0],
    row_seconds=0.0,
)


async def counted(ending: Ending) -> dict[str, float]:
    metrics = Metrics()
    await QualityAssignment(JOB, SAMPLE, metrics.bind).store(ending)
    return {
        "/".join([sample.name.removeprefix("explain_"), *sample.labels.values()]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.value and "credit" in sample.labels.values() and "le" not in sample.labels
    }


def ended(stability: Finding, fidelity: Finding) -> Finished:
    found: Any = {"stability": stability, "fidelity": fidelity}
    return Finished(Findings(found, 0.25, 640).to_bytes(), 1.0, 1.0)


async def test_what_was_measured_is_observed_with_its_cost() -> None:
    assert await counted(ended(Finding.of(0.75), Finding.of(0.5))) == {
        "attribution_stability_ratio_count/credit/linear": 1,
        "attribution_stability_ratio_sum/credit/linear": 0.75,
        "fidelity_ratio_count/credit/linear": 1,
        "fidelity_ratio_sum/credit/linear": 0.5,
        "quality_samples_total/credit/linear/stability/measured": 1,
        "quality_samples_total/credit/linear/fidelity/measured": 1,
        "cpu_seconds_total/credit/linear/quality": 0.25,
        "model_evaluations_total/credit/linear/quality": 640,
    }


async def test_what_was_not_measured_is_counted_and_not_observed() -> None:
    assert await counted(ended(Finding("zero"), Finding("too_costly"))) == {
        "quality_samples_total/credit/linear/stability/zero": 1,
        "quality_samples_total/credit/linear/fidelity/too_costly": 1,
        "cpu_seconds_total/credit/linear/quality": 0.25,
        "model_evaluations_total/credit/linear/quality": 640,
    }


async def test_what_was_given_up_counts_as_failed() -> None:
    assert await counted(GivenUp("failed", "why")) == {
        "quality_samples_total/credit/linear/stability/failed": 1,
        "quality_samples_total/credit/linear/fidelity/failed": 1,
    }


async def test_a_version_that_is_refused_is_counted_as_one() -> None:
    metrics = Metrics()
    QualityAssignment(JOB, SAMPLE, metrics.bind).refused("GoldenMismatchError")
    value = metrics.registry.get_sample_value
    labels = {"model": "credit", "method": "linear", "invariant": "golden"}
    assert value("explain_invariant_failures_total", labels) == 1


@pytest.mark.parametrize(("raw", "shown"), [(-0.4, 0.0), (1.0 + 1e-12, 1.0), (0.6, 0.6)])
def test_a_measure_is_a_ratio(raw: float, shown: float) -> None:
    assert Finding.of(raw) == Finding("measured", shown)
