"""Stability and faithfulness of explanations that were served, measured on a sample in workers."""

from service.quality.findings import (
    Finding,
    Findings,
    Sample,
    is_sample,
)
from service.quality.measuring import measure
from service.quality.sampling import QualitySampling

__all__ = (
    "Finding",
    "Findings",
    "QualitySampling",
    "Sample",
    "is_sample",
    "measure",
)
