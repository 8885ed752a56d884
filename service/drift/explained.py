"""Explanations that a worker has computed, on their way into the windows."""

from dataclasses import dataclass, field

import numpy as np
import orjson

from service.drift.baseline import Baseline
from service.drift.tallying import Tallies
from service.errors import CommandError
from service.logs import log
from service.registry.layout import Layout


@dataclass(slots=True, eq=False)
class ExplainedTap:
    """Where explanations of any version are seen; their rows were seen when they were predicted."""

    tallies: Tallies
    layout: Layout
    _baselines: dict[tuple[str, int], Baseline | None] = field(default_factory=dict)

    def see(self, model: str, version: int, explanation: bytes) -> None:
        """A complete explanation by the version's own method, as JSON. Cost: parsing it."""
        baseline = self._baseline(model, version)
        if baseline is None or not baseline.bins.attributed:
            return
        values = orjson.loads(explanation)["values"]
        if values is not None:
            self.tallies.see(baseline, None, None, np.array(values, dtype=np.float64))

    def _baseline(self, model: str, version: int) -> Baseline | None:
        key = model, version
        if key not in self._baselines:
            try:
                self._baselines[key] = Baseline.read(self.layout, model, version)
            except CommandError as error:
                log.error("drift_off", model=model, version=version, reason=str(error))
                self._baselines[key] = None
        return self._baselines[key]
