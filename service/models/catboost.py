"""CatBoost models: the served numbers from the library, the trees from its JSON export."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from explainers.base import (
    FloatArray,
    IdentityDerivation,
    Level,
    Link,
    MalformedModelError,
    OutputSpace,
    UnsupportedModelError,
)
from explainers.tree.catboost import parse_catboost
from service.models.base import InputColumns, Served, Task, TreeForm, binary_scores
from service.models.catboost_file import FileFacts, read_file_facts
from service.models.columns import Levels, StoredColumns, chosen_names, input_columns
from service.models.errors import ModelLoadError
from service.models.links import MarginLink, logistic, proof_margins
from service.models.objectives import (
    BINARY,
    FRACTION,
    LOG,
    MULTICLASS,
    VALUE,
    Objective,
    known_objective,
)

LOSSES = {
    "CrossEntropy": FRACTION,
    "Expectile": VALUE,
    "Focal": BINARY,
    "Huber": VALUE,
    "LogCosh": VALUE,
    "Logloss": BINARY,
    "Lq": VALUE,
    "MAE": VALUE,
    "MAPE": VALUE,
    "MultiClass": MULTICLASS,
    "PairLogit": VALUE,
    "PairLogitPairwise": VALUE,
    "Poisson": LOG,
    "Quantile": VALUE,
    "QueryRMSE": VALUE,
    "QuerySoftMax": VALUE,
    "RMSE": VALUE,
    "Tweedie": LOG,
    "YetiRank": VALUE,
    "YetiRankPairwise": VALUE,
}
ADVICE = {
    "MultiClassOneVsAll": "its class scores do not sum to one; train with MultiClass",
    "MultiCrossEntropy": "register one model per label",
    "MultiLogloss": "register one model per label",
    "MultiQuantile": "register one model per quantile",
    "MultiRMSE": "register one model per target",
    "MultiRMSEWithMissingValues": "register one model per target",
    "RMSEWithUncertainty": "it predicts a variance beside the value; train with RMSE",
}
PREDICTION_TYPES: dict[Link, str] = {
    "logit": "Probability",
    "softmax": "Probability",
    "log": "Exponent",
}
LABEL_TYPES = {"Boolean": bool, "Float": float, "Integer": int, "String": str}
INSTALL = "CatBoost is not installed here; add it with .venv/bin/python -m pip install catboost"


@dataclass(eq=False)
class CatBoostModel:
    """A loaded model behind `NativeModel`; serves all trees in the file."""

    booster: Any
    columns: InputColumns
    facts: FileFacts
    task: Task
    n_classes: int
    output_space: OutputSpace
    link: Link
    trees_used: int
    classes: tuple[Level, ...] | None
    library: str = "catboost"
    format: str = "cbm"
    is_float32: bool = False

    def __post_init__(self) -> None:
        self._logistic = self._proven_logistic() if self.link == "logit" else None

    def predict(self, X: FloatArray) -> Served:
        """Served numbers of (N, F) raw rows; ValueError where a category is missing."""
        pool = self._pool(X)
        outputs = self._numbers(pool, "RawFormulaVal")
        if self.link == "identity":
            return Served(outputs, outputs)
        if self._logistic is None:
            return Served(outputs, self._scores(pool))
        share = self._logistic(outputs)
        return Served(outputs, share if self._is_share else binary_scores(share[:, 0]))

    def evaluate(self, X: FloatArray) -> FloatArray:
        """(N, C) raw formula values; ValueError where a category is missing."""
        return self._numbers(self._pool(X), "RawFormulaVal")

    def _scores(self, pool: Any) -> FloatArray:  # noqa: ANN401  # catboost.Pool
        scores = self._numbers(pool, PREDICTION_TYPES[self.link])
        return scores[:, 1:] if self._is_share else scores

    def _proven_logistic(self) -> MarginLink | None:
        """Our logistic link if it equals the library's bit by bit, near zero and far from it.

        It saves the second pass over the trees. CatBoost's softmax and exp are not the C library's.
        """
        baseline = proof_margins(1)
        pool = self._pool(np.zeros((len(baseline), len(self.columns.raw))), baseline=baseline)
        share = logistic(self._numbers(pool, "RawFormulaVal"))
        expected = share if self._is_share else binary_scores(share[:, 0])
        return logistic if np.array_equal(self._scores(pool), expected) else None

    @property
    def _is_share(self) -> bool:
        return self.task == "regression" and self.link == "logit"

    def _numbers(self, pool: Any, kind: str) -> FloatArray:  # noqa: ANN401  # catboost.Pool
        numbers: FloatArray = self.booster.predict(pool, prediction_type=kind, thread_count=1)
        return numbers.reshape(pool.num_row(), -1)

    def _pool(self, X: FloatArray, *, baseline: FloatArray | None = None) -> Any:  # noqa: ANN401
        from catboost import Pool

        if not self.facts.category_columns:
            return Pool(X, baseline=baseline)
        rows = X.astype(object)
        for column in self.facts.category_columns:
            levels = self.columns.raw.levels[column]
            assert levels is not None
            if np.isnan(X[:, column]).any():
                raise ValueError(f"column {self.columns.raw.names[column]!r} may not be missing")
            rows[:, column] = np.array(levels, dtype=object)[X[:, column].astype(np.intp)]
        return Pool(rows, cat_features=list(self.facts.category_columns), baseline=baseline)

    def form(self) -> TreeForm:
        """The trees that are served; UnsupportedModelError when they split by category."""
        return self._parsed

    @cached_property
    def _parsed(self) -> TreeForm:
        from catboost import CatBoostError

        if self.facts.category_splits:
            kinds = " and ".join(self.facts.category_splits)
            raise UnsupportedModelError(f"CatBoost splits by {kinds} have no exact explainer")
        try:
            document = json.loads(_exported(self.booster, "json"))
        except (CatBoostError, ValueError, RecursionError) as error:
            raise MalformedModelError(
                f"CatBoost exports no JSON for this model: {error}"
            ) from error
        return TreeForm(parse_catboost(document), IdentityDerivation.over(len(self.columns.raw)))


def load_catboost(
    data: bytes,
    *,
    names: tuple[str, ...] | None = None,
    categories: Mapping[str, Levels] | None = None,
) -> CatBoostModel:
    """Load a model file. names serve where it stores none; categories list the levels of category
    columns, of which it stores only hashes.

    ModelLoadError for broken files and where CatBoost is not installed; UnsupportedModelError for
    losses that cannot be served.
    """
    facts = read_file_facts(data)
    booster, information = _booster(data)
    objective = _objective(information, facts.n_outputs)
    stored = _stored_columns(booster, facts, names)
    columns = input_columns(stored, categories=categories or {}, unknown="refuse")
    _check_levels(columns, facts)
    return CatBoostModel(
        booster=booster,
        columns=replace(
            columns, accepts_missing=tuple(not is_category for is_category in stored.is_category)
        ),
        facts=facts,
        task=objective.task,
        n_classes=objective.n_classes(facts.n_outputs),
        output_space=objective.output_space,
        link=objective.link,
        trees_used=int(booster.tree_count_),
        classes=None if objective.task == "regression" else _classes(information),
    )


def dump_catboost(model: object) -> bytes:
    """A fitted model as the library stores it, classes included."""
    from catboost import CatBoost

    if not isinstance(model, CatBoost):
        raise ModelLoadError(f"{type(model).__qualname__} is no CatBoost model")
    if not model.is_fitted():
        raise ModelLoadError("the model is not fitted")
    return _exported(model, "cbm")


def _booster(data: bytes) -> tuple[Any, dict[str, Any]]:  # catboost.CatBoost
    """The loaded model and its own description: `params`, and `class_params` of classifiers."""
    try:
        from catboost import CatBoost, CatBoostError
    except ImportError as error:
        raise ModelLoadError(INSTALL) from error
    booster = CatBoost()
    try:
        booster.load_model(blob=data)
        texts = dict(booster.get_metadata().items())
        information = {
            key: json.loads(texts[key]) for key in ("params", "class_params") if key in texts
        }
    except (CatBoostError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"CatBoost refuses the file: {error}") from error
    return booster, information


def _objective(information: dict[str, Any], n_outputs: int) -> Objective:
    try:
        loss = information["params"]["loss_function"]["type"]
    except (KeyError, TypeError) as error:
        raise UnsupportedModelError("the file does not say which loss it was trained on") from error
    objective = known_objective(loss, LOSSES, advice=ADVICE, word="loss")
    if (n_outputs > 1) != (objective.task == "multiclass"):
        raise ModelLoadError(f"{n_outputs} outputs do not fit loss {loss!r}")
    return objective


def _classes(information: dict[str, Any]) -> tuple[Level, ...] | None:
    labels = information.get("class_params")
    if labels is None:
        return None
    try:
        as_type = LABEL_TYPES[labels["class_label_type"]]
        return tuple(as_type(name) for name in labels["class_names"]) or None
    except (KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(f"the file does not say which classes it knows: {error!r}") from error


def _stored_columns(
    booster: Any,  # noqa: ANN401  # catboost.CatBoost
    facts: FileFacts,
    names: tuple[str, ...] | None,
) -> StoredColumns:
    stored = tuple(booster.feature_names_)
    default = tuple(str(column) for column in range(facts.n_columns))
    if len(stored) != facts.n_columns:
        raise ModelLoadError(f"{len(stored)} column names for a model of {facts.n_columns} columns")
    return StoredColumns(
        names=chosen_names(None if stored == default else stored, given=names, default=default),
        levels=(None,) * facts.n_columns,
        is_category=tuple(column in facts.category_columns for column in range(facts.n_columns)),
        why_no_levels="the artifact stores only hashes of its levels",
    )


def _check_levels(columns: InputColumns, facts: FileFacts) -> None:
    for column in facts.category_columns:
        levels = columns.raw.levels[column]
        if not levels:
            raise ModelLoadError(f"column {columns.raw.names[column]!r} has no levels")
        for level in levels:
            if not isinstance(level, str) and type(level) is not int:
                raise ModelLoadError(
                    f"level {level!r} of {columns.raw.names[column]!r}: CatBoost knows text and "
                    "whole numbers as categories"
                )


def _exported(booster: Any, kind: str) -> bytes:  # noqa: ANN401  # catboost.CatBoost
    # The library writes to paths only.
    with TemporaryDirectory(prefix="explaind-") as folder:
        path = Path(folder) / f"model.{kind}"
        booster.save_model(str(path), format=kind)
        return path.read_bytes()
