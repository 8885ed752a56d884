"""Which raw column each derived column of fitted scikit-learn steps is made from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainers.base import IntArray, MalformedModelError
from explainers.chains import (
    Chain,
    Operations,
    applying,
    binning,
    extended,
    filling,
    flagging,
    reads_nan,
    scaling,
)

SCALERS = (
    "Binarizer",
    "MaxAbsScaler",
    "MinMaxScaler",
    "PowerTransformer",
    "QuantileTransformer",
    "RobustScaler",
    "StandardScaler",
)
SELECTORS = (
    "GenericUnivariateSelect",
    "RFE",
    "RFECV",
    "SelectFdr",
    "SelectFpr",
    "SelectFromModel",
    "SelectFwe",
    "SelectKBest",
    "SelectPercentile",
    "SequentialFeatureSelector",
    "VarianceThreshold",
)


@dataclass(frozen=True, slots=True)
class Origin:
    """A column on its way through the steps: its raw column, whether it still holds the raw values,
    at most with the missing ones filled in, and what has been done with it since.
    """

    player: int
    is_raw: bool = True
    chain: Chain = ()


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """What one fitted encoder knows about one raw column."""

    categories: NDArray[Any]
    ignores_unknown: bool


Origins = Sequence[Origin]
Step = Any
"""A fitted transformer, or one of scikit-learn's words for none."""


@dataclass(slots=True, eq=False)
class StepTrace:
    """What fitted steps do with each raw column.

    players (P,) names the raw column of each derived column; where refusal says why there is no
    such map, players and chains are incomplete. chains (P) tells how a number becomes the derived
    column, None where that is not known. encodings lists the encoders that read a raw column,
    as_numbers the raw columns that are (also) read as numbers, none_is_missing those in which the
    fitted steps know None as the missing value, not NaN.
    """

    players: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    chains: tuple[Chain, ...] = ()
    refusals: list[str] = field(default_factory=list)
    encodings: dict[int, list[Encoding]] = field(default_factory=dict)
    as_numbers: set[int] = field(default_factory=set)
    none_is_missing: set[int] = field(default_factory=set)

    def read_numbers(self, origins: Origins) -> None:
        """Note that these columns are read as numbers."""
        self.as_numbers.update(origin.player for origin in origins if origin.is_raw)

    def read_levels(self, origins: Origins, encoder: Any, *, ignores_unknown: bool) -> None:  # noqa: ANN401
        """Note that the encoder reads these columns, in this order, as categories."""
        for origin, categories in zip(origins, encoder.categories_, strict=True):
            if not origin.is_raw:
                continue
            encoding = Encoding(categories, ignores_unknown)
            self.encodings.setdefault(origin.player, []).append(encoding)
            if any(category is None for category in categories):
                self.none_is_missing.add(origin.player)


def trace_steps(steps: Step, n_columns: int) -> StepTrace:
    """Follow n_columns raw columns through a fitted transformer, pipeline or column transformer."""
    trace = StepTrace()
    final = _follow(steps, [Origin(player) for player in range(n_columns)], trace)
    trace.read_numbers(final)
    trace.players = np.array([origin.player for origin in final], dtype=np.int64)
    trace.chains = tuple(origin.chain for origin in final)
    return trace


def _follow(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    if step is None or step == "passthrough":
        return origins
    if isinstance(step, str):
        return []
    # By exact class: a subclass may do anything in its transform.
    is_known = type(step).__module__.startswith("sklearn.")
    rule = RULES.get(type(step).__name__, _opaque) if is_known else _opaque
    return rule(step, origins, trace)


def _pipeline(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    n_refusals = len(trace.refusals)
    for _, member in step.steps:
        origins = _follow(member, origins, trace)
        if len(trace.refusals) > n_refusals:
            break
    return origins


def _column_transformer(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    parts = []
    for name, member, _ in step.transformers_:
        chosen = [origins[index] for index in step._transformer_to_input_indices[name]]  # noqa: SLF001
        if chosen:
            parts.append(_follow(member, chosen, trace))
    return list(chain.from_iterable(parts))


def _feature_union(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    parts = [_follow(member, origins, trace) for _, member in step.transformer_list]
    return list(chain.from_iterable(parts))


def _scaler(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    trace.read_numbers(origins)
    return [_changed(origin, scaling(step, column)) for column, origin in enumerate(origins)]


def _function(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    if step.func is None or _only_checks(step.func):
        return origins
    is_elementwise = isinstance(step.func, np.ufunc) and (step.func.nin, step.func.nout) == (1, 1)
    if is_elementwise and not step.kw_args:
        trace.read_numbers(origins)
        return [_changed(origin, applying(step.func)) for origin in origins]
    return _opaque(step, origins, trace)


def _only_checks(func: Callable[..., Any]) -> bool:
    # Histogram boosting's own step for numbers.
    from sklearn.utils.validation import check_array

    return isinstance(func, partial) and func.func is check_array


def _imputer(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    if step.missing_values is None:
        trace.none_is_missing.update(origin.player for origin in origins if origin.is_raw)
    statistics = step.statistics_
    has_value = [step.keep_empty_features or value == value for value in statistics]  # noqa: PLR0124
    _require_width(len(has_value), origins)
    filled = [
        replace(origin, chain=extended(origin.chain, filling(step, column)))
        for column, origin in enumerate(origins)
        if has_value[column]
    ]
    return [*filled, *_indicator(step.indicator_, origins, trace)] if step.add_indicator else filled


def _indicator(step: Step, origins: Origins, _: StepTrace) -> Origins:
    chosen = [origins[index] for index in step.features_]
    return [
        Origin(
            origin.player, is_raw=False, chain=flagging(origin.chain) if reads_nan(step) else None
        )
        for origin in chosen
    ]


def _selector(step: Step, origins: Origins, _: StepTrace) -> Origins:
    return _kept(origins, step.get_support())


def _one_hot(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    trace.read_levels(origins, step, ignores_unknown=step.handle_unknown != "error")
    return _repeated(origins, step._n_features_outs)  # noqa: SLF001


def _ordinal(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    trace.read_levels(origins, step, ignores_unknown=step.handle_unknown != "error")
    return _unknown(origins)


def _target_encoder(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    trace.read_levels(origins, step, ignores_unknown=True)
    n_each = len(step.classes_) if step.target_type_ == "multiclass" else 1
    return _repeated(origins, [n_each] * len(origins))


def _bins(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    trace.read_numbers(origins)
    _require_width(len(step.n_bins_), origins)
    return [
        _changed(origin, operations)
        for column, origin in enumerate(origins)
        for operations in binning(step, column)
    ]


def _opaque(step: Step, origins: Origins, trace: StepTrace) -> Origins:
    trace.read_numbers(origins)
    players = {origin.player for origin in origins}
    if len(players) == 1 and hasattr(step, "get_feature_names_out"):
        made = Origin(players.pop(), is_raw=False, chain=None)
        return [made] * len(step.get_feature_names_out())
    name = type(step).__qualname__
    trace.refusals.append(f"{name} may make one column from {len(players)} raw columns")
    return []


def _changed(origin: Origin, operations: Operations) -> Origin:
    return Origin(origin.player, is_raw=False, chain=extended(origin.chain, operations))


def _unknown(origins: Origins) -> Origins:
    return [_changed(origin, None) for origin in origins]


def _kept(origins: Origins, mask: NDArray[np.bool_]) -> Origins:
    _require_width(len(mask), origins)
    return [origin for origin, is_kept in zip(origins, mask, strict=True) if is_kept]


def _repeated(origins: Origins, counts: Iterable[int]) -> Origins:
    each = list(counts)
    _require_width(len(each), origins)
    return [
        _changed(origin, None)
        for origin, count in zip(origins, each, strict=True)
        for _ in range(int(count))
    ]


def _require_width(width: int, origins: Origins) -> None:
    if width != len(origins):
        raise MalformedModelError(f"a step fitted on {width} columns receives {len(origins)}")


RULES: dict[str, Callable[[Step, Origins, StepTrace], Origins]] = {
    **dict.fromkeys(SCALERS, _scaler),
    **dict.fromkeys(SELECTORS, _selector),
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
    "FunctionTransformer": _function,
    "KBinsDiscretizer": _bins,
    "MissingIndicator": _indicator,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "Pipeline": _pipeline,
    "SimpleImputer": _imputer,
    "TargetEncoder": _target_encoder,
}
