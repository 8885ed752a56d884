"""A version as its labelled predictions are counted."""

from service.drift.baseline import Baseline
from service.performance.tally import Shape
from service.performance.windows import Measured
from service.registry.described import describe_version
from service.registry.layout import Layout


def measured_version(layout: Layout, name: str, version: int) -> Measured:
    """Raises UnknownError, DamagedVersionError."""
    known = describe_version(layout, name, version)
    edges = None
    if known.manifest.classes is None:
        edges = Baseline.read(layout, name, version).bins.scores[0].edges
    shape = Shape.of(known.manifest, () if edges is None else edges.tolist())
    return Measured(name, version, known.digest, shape)
