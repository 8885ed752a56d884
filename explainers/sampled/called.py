"""A model that is only called, and the background its explanations are against."""

from dataclasses import dataclass, field

import numpy as np

from explainers.base import (
    Background,
    Engine,
    Explanation,
    FloatArray,
    IntArray,
    Method,
    Naming,
    Values,
)
from explainers.sampled.calls import Evaluate, ModelCalls


@dataclass(frozen=True, slots=True, eq=False)
class CalledModel:
    """evaluate, the frozen background, and the model's outputs over it, as every call of shape
    (rows_per_call, F) gives them.

    starts (B, C) are the outputs of the background rows, base_values (C,) their mean, scale (C,)
    their standard deviation. Cost: B model rows. Raises ValueError when the background has another
    number of columns than there are features, MalformedModelError for outputs of another shape.
    """

    evaluate: Evaluate
    background: Background
    naming: Naming
    rows_per_call: int
    starts: FloatArray = field(init=False)
    base_values: FloatArray = field(init=False)
    scale: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.naming.check(self.background)
        starts = self.calls()(self.background.rows)
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "base_values", starts.mean(axis=0))
        object.__setattr__(self, "scale", starts.std(axis=0))

    def calls(self) -> ModelCalls:
        """For one instance."""
        return ModelCalls(self.evaluate, len(self.naming.outputs), self.rows_per_call)

    def outputs(self, X: FloatArray) -> FloatArray:
        """(N, C) of rows (N, F), each called alone, so that none depends on the rows beside it."""
        return ModelCalls(self.evaluate, len(self.naming.outputs), 1)(X)

    def warm_up(self) -> None:
        """Call it once, with rows of the shape of every later call."""
        self.calls()(self.background.rows[:1])

    def explanation(
        self,
        values: Values,
        *,
        method: Method,
        engine: Engine,
        model_evaluations: int,
        standard_errors: Values | None = None,
        seeds: IntArray | None = None,
    ) -> Explanation:
        """The explanation of N rows with these values, (N, F, C); exact without errors."""
        return Explanation(
            values=values,
            base_values=np.repeat(self.base_values[None, :], len(values), axis=0),
            feature_names=self.naming.features,
            output_names=self.naming.outputs,
            output_space=self.naming.output_space,
            method=method,
            engine=engine,
            exact=standard_errors is None,
            background_digest=self.background.digest,
            standard_errors=standard_errors,
            seeds=seeds,
            model_evaluations=model_evaluations,
        )


class CalledExplainer:
    """What the explainers have in common that know nothing of a model but its calls."""

    def __init__(self, model: CalledModel, *, tolerance: float) -> None:
        self.tolerance = tolerance
        self.output_scale: FloatArray = model.scale
        self._model = model

    def stored_tables(self) -> bytes | None:
        """None: nothing is compiled."""
        return None

    def outputs(self, X: FloatArray) -> FloatArray:
        """(N, C) of the model itself, called with one row at a time."""
        return self._model.outputs(X)

    def warm_up(self) -> None:
        """Call the model once, with rows of the shape of every later call."""
        self._model.warm_up()


def checked_seeds(seeds: IntArray | None, n_rows: int) -> IntArray:
    """(N,) seeds, all 0 where none are given; ValueError unless each row has one below 2^53."""
    if seeds is None:
        return np.zeros(n_rows, dtype=np.int64)
    if seeds.shape != (n_rows,):
        raise ValueError(f"{n_rows} rows need as many seeds, not {seeds.shape}")
    if np.any((seeds < 0) | (seeds >= 1 << 53)):
        raise ValueError("seeds are from 0 to below 2^53")
    return seeds
