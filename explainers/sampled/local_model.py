"""LIME for tables: a weighted linear model of the model around one row. Not Shapley values."""

from dataclasses import dataclass

import numpy as np

from explainers.base import Background, FloatArray, IntArray, Naming, OutputSpace, Values
from explainers.sampled.called import CalledModel, checked_seeds
from explainers.sampled.calls import ROWS_PER_CALL, Evaluate
from explainers.sampled.walks import differing, places_of

FLAT = 1e-12
"""Outputs that vary by less, relative to themselves, do not vary."""


@dataclass(frozen=True, slots=True)
class LocalModelConfig:
    """samples: hybrids a row, of which the row itself is the first. kernel_width: of the
    neighbourhood, in units of the root of F. ridge: the penalty. The last two, and the number of
    samples, are the lime library's defaults. Raises ValueError.
    """

    samples: int = 5000
    kernel_width: float = 0.75
    ridge: float = 1.0
    rows_per_call: int = ROWS_PER_CALL

    def __post_init__(self) -> None:
        if self.samples < 2 or self.rows_per_call < 1:
            raise ValueError(f"two samples at least, and a row per call: {self}")
        if self.kernel_width <= 0 or self.ridge <= 0:
            raise ValueError(f"kernel width and ridge are above 0: {self}")


@dataclass(frozen=True, slots=True, eq=False)
class LocalModel:
    """Linear models around N rows: coefficients (N, F, C), intercept (N, C), in output_space.

    A coefficient is what the output gains, by the linear model, where a column has the row's value
    instead of a background row's. r2 (N, C): the share of the weighted variance of the outputs
    that the linear model explains; 1 where there is none. seeds (N,).
    """

    coefficients: Values
    intercept: FloatArray
    r2: FloatArray
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    output_space: OutputSpace
    config: LocalModelConfig
    background_digest: str
    seeds: IntArray
    model_evaluations: int


def explain_locally(
    evaluate: Evaluate,
    background: Background,
    X: FloatArray,
    *,
    naming: Naming,
    seeds: IntArray | None = None,
    config: LocalModelConfig | None = None,
) -> LocalModel:
    """Fit a linear model around each row of X, (N, F) raw columns in schema order.

    A sample is a hybrid: a number of columns, uniform from 1 to F, drawn at random, take the value
    of a background row, and all background rows are used equally often. It is described by which
    cells equal the row's, weighted by sqrt(exp(-changed / (kernel_width^2 F))), and fitted by
    ridge regression with a free intercept. So columns equal everywhere have the coefficient 0.
    lime draws continuous cells from a normal distribution and describes them by quartiles, which
    leaves the data; hybrids are what lime does to text and images.

    A row's numbers are a function of the row, its seed and the configuration alone. Cost: samples
    model rows a row. Sources: Ribeiro et al. 2016, sections 3.2 to 3.4; lime's `lime_text`,
    `lime_tabular` and `lime_base`.
    """
    chosen = config or LocalModelConfig()
    model = CalledModel(evaluate, background, naming, chosen.rows_per_call)
    drawn = checked_seeds(seeds, len(X))
    fits = [_fitted(model, x, seed, chosen) for x, seed in zip(X, drawn.tolist(), strict=True)]
    per_output = len(X), len(naming.outputs)
    per_feature = len(X), len(naming.features), len(naming.outputs)
    return LocalModel(
        coefficients=np.array([fit.coefficients for fit in fits]).reshape(per_feature),
        intercept=np.array([fit.intercept for fit in fits]).reshape(per_output),
        r2=np.array([fit.r2 for fit in fits]).reshape(per_output),
        feature_names=naming.features,
        output_names=naming.outputs,
        output_space=naming.output_space,
        config=chosen,
        background_digest=background.digest,
        seeds=drawn,
        model_evaluations=sum(fit.model_evaluations for fit in fits),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    coefficients: FloatArray
    intercept: FloatArray
    r2: FloatArray
    model_evaluations: int


def _fitted(model: CalledModel, x: FloatArray, seed: int, config: LocalModelConfig) -> _Fit:
    hybrids = _hybrids(x, model.background.rows, seed, config.samples)
    calls = model.calls()
    outputs = calls(hybrids)
    same = (~differing(x, hybrids)).astype(np.float64)
    weights = np.exp((same.sum(axis=1) - len(x)) / (config.kernel_width**2 * len(x)) / 2)
    return _Fit(*_ridge(same, outputs, weights, config.ridge), calls.evaluations)


def _hybrids(x: FloatArray, background_rows: FloatArray, seed: int, n_samples: int) -> FloatArray:
    """(n_samples, F), the first x itself."""
    n_columns = len(x)
    # Raw bits, since a bit generator's stream is the same in every numpy, unlike what shuffles.
    drawn = np.random.Philox(key=seed).random_raw(n_samples * (n_columns + 1))
    sizes, keys = np.split(drawn.reshape(n_samples, -1), [1], axis=1)
    n_changed = 1 + (sizes >> np.uint64(11)).astype(np.int64) % n_columns
    is_changed = places_of(keys) < n_changed
    is_changed[0] = False
    return np.where(is_changed, background_rows[np.arange(n_samples) % len(background_rows)], x)


def _ridge(
    described: FloatArray, outputs: FloatArray, weights: FloatArray, ridge: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Coefficients (F, C), intercept (C,) and weighted R2 (C,)."""
    total = weights.sum()
    middle, level = weights @ described / total, weights @ outputs / total
    # A mean of ones is not exactly one: what never changed would count for some 1e-30.
    centred = np.where(described.all(axis=0), 0.0, described - middle)
    gaps = outputs - level
    gram = centred.T @ (centred * weights[:, None]) + ridge * np.eye(described.shape[1])
    coefficients = np.linalg.solve(gram, centred.T @ (gaps * weights[:, None]))
    left = weights @ (gaps - centred @ coefficients) ** 2
    spread = weights @ gaps**2
    varies = spread > total * (FLAT * level) ** 2
    r2 = 1 - np.divide(left, spread, out=np.zeros_like(left), where=varies)
    return coefficients, level - middle @ coefficients, r2
