"""XGBoost models: the served numbers from the library, the trees from its file."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from explainers.base import (
    FloatArray,
    IdentityDerivation,
    Level,
    Link,
    MalformedModelError,
    OutputSpace,
)
from explainers.tree.xgboost import parse_xgboost
from service.models.base import InputColumns, Served, Task, TreeForm, binary_scores
from service.models.columns import Levels, input_columns
from service.models.errors import ModelLoadError
from service.models.links import proof_margins
from service.models.xgboost_call import DenseMargins
from service.models.xgboost_file import Format, columns_of, facts_of, read_document

Float32Array = NDArray[np.float32]


@dataclass(eq=False)
class XGBoostModel:
    """A loaded Booster behind `NativeModel`.

    Serves the trees up to best_iteration, as XGBoost's scikit-learn classes do. The `missing=`
    number of those classes is not in the file: only NaN is missing here.
    """

    booster: Any
    objective: str
    format: str
    task: Task
    columns: InputColumns
    n_classes: int
    output_space: OutputSpace
    link: Link
    iterations: int
    trees_used: int | None
    trees_stored: int
    trees: TreeForm
    logistic: Callable[[Float32Array], Float32Array] | None = None
    """The library's link, when this machine's is proven to give the same bits."""
    dense_margins: DenseMargins | None = None
    """The library's function without its Python layer, when proven to give the same bits."""
    library: str = "xgboost"
    classes: tuple[Level, ...] | None = None
    is_float32: bool = True

    def predict(self, X: FloatArray) -> Served:
        """Served numbers of (N, F) raw rows: float32, widened."""
        margin = self.margin(X)
        return Served(
            outputs=margin.astype(np.float64),
            scores=self._scores(X, margin).astype(np.float64),
        )

    def evaluate(self, X: FloatArray) -> FloatArray:
        """(N, C) margins: float32, widened."""
        return self.margin(X).astype(np.float64)

    def margin(self, X: FloatArray) -> Float32Array:
        """(N, K) raw scores."""
        if self.dense_margins is not None:
            return self.dense_margins(X)
        return self._inplace(X, "margin").reshape(len(X), -1)

    def form(self) -> TreeForm:
        """The trees that are served."""
        return self.trees

    def _scores(self, X: FloatArray, margin: Float32Array) -> NDArray[np.floating[Any]]:
        if self.objective == "multi:softmax":
            # The library would serve the label; its classifier takes this softmax instead.
            from scipy.special import softmax

            probabilities: Float32Array = softmax(margin, axis=1)
            return probabilities
        if self.link == "identity":
            value = margin
        elif self.logistic is not None:
            value = self.logistic(margin.ravel())
        else:
            value = self._inplace(X, "value")
        if self.task == "binary":
            # 1 - p in float32, as in XGBoost
            return binary_scores(value.ravel())  # type: ignore[arg-type]
        return value.reshape(len(X), -1)

    def _inplace(self, X: FloatArray, kind: Literal["margin", "value"]) -> Float32Array:
        result: Float32Array = self.booster.inplace_predict(
            X,
            iteration_range=(0, self.iterations),
            predict_type=kind,
            validate_features=False,
        )
        return result


def load_xgboost(
    data: bytes,
    *,
    format: Format,  # noqa: A002  # the word used for it on the wire and on disk
    names: tuple[str, ...] | None = None,
    categories: Mapping[str, Levels] | None = None,
    behind_steps: bool = False,
) -> XGBoostModel:
    """Load a saved Booster. names and categories serve where the file stores none (before 3.1);
    behind the steps of a pipeline its category columns need none.

    ModelLoadError for broken files, UnsupportedModelError for kinds that cannot be served.
    XGBoost crashes the process on files that contradict themselves, so every tree is read and
    checked here before it sees them.
    """
    document = read_document(data, format)
    known = categories or {}
    try:
        facts = facts_of(document)
        stored = columns_of(document, names=names, categories=known, behind_steps=behind_steps)
        form = _form(document, facts.trees)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"not an XGBoost model file: {error!r}") from error
    booster = _booster(data, len(stored.names))
    return XGBoostModel(
        booster=booster,
        dense_margins=DenseMargins.proven(booster, len(stored.names), iterations=facts.iterations),
        logistic=_proven_logistic(booster, len(stored.names), facts.objective.link),
        objective=facts.objective_name,
        format=format,
        task=facts.objective.task,
        columns=input_columns(stored, categories=known, unknown="refuse"),
        n_classes=facts.objective.n_classes(facts.n_outputs),
        output_space=facts.objective.output_space,
        link=facts.objective.link,
        iterations=facts.iterations,
        trees_used=facts.trees,
        trees_stored=facts.trees_stored,
        trees=form,
    )


def dump_xgboost(model: object) -> tuple[bytes, tuple[Level, ...] | None]:
    """A Booster or a scikit-learn wrapper as ubj, and the wrapper's classes."""
    from xgboost import Booster, XGBModel

    if isinstance(model, Booster):
        return bytes(model.save_raw("ubj")), None
    if not isinstance(model, XGBModel):
        raise ModelLoadError(f"{type(model).__qualname__} is no XGBoost model")
    if not math.isnan(model.missing):
        raise ModelLoadError(
            f"missing={model.missing} is not stored in XGBoost's file; train with NaN for missing"
        )
    try:
        booster = model.get_booster()
    except ValueError as error:
        raise ModelLoadError(f"the model is not fitted: {error}") from error
    classes = getattr(model, "classes_", None)
    return bytes(booster.save_raw("ubj")), None if classes is None else tuple(classes.tolist())


def _form(document: Mapping[str, Any], trees: int) -> TreeForm:
    try:
        # All trees, because the library reads the ones it does not serve too.
        n_columns = parse_xgboost(document).n_columns
        served = parse_xgboost(document, trees=trees)
    except MalformedModelError as error:
        raise ModelLoadError(str(error)) from error
    return TreeForm(served, IdentityDerivation.over(n_columns))


def _booster(data: bytes, n_columns: int) -> Any:  # noqa: ANN401  # xgboost.Booster
    from xgboost import Booster
    from xgboost.core import XGBoostError

    booster = Booster()
    try:
        booster.load_model(bytearray(data))
        booster.set_param({"nthread": 1})
        # The first call configures the booster, which is not safe in two threads at once.
        booster.inplace_predict(np.zeros((1, n_columns)), validate_features=False)
    except XGBoostError as error:
        first_line = str(error).partition("\n")[0]
        raise ModelLoadError(f"XGBoost refuses the file: {first_line}") from error
    return booster


def _proven_logistic(
    booster: Any,  # noqa: ANN401  # xgboost.Booster
    n_columns: int,
    link: Link,
) -> Callable[[Float32Array], Float32Array] | None:
    """Our logistic link if it equals the library's bit by bit, near zero and far from it.

    It saves the second pass over the trees. None under another link.
    """
    if link != "logit":
        return None
    from explainers.tree.kernel import logistic_float32

    shift = proof_margins(1)[:, 0].astype(np.float32)
    rows = np.zeros((len(shift), n_columns))
    margins = booster.inplace_predict(
        rows, predict_type="margin", base_margin=shift, validate_features=False
    )
    served = booster.inplace_predict(rows, base_margin=shift, validate_features=False)
    return logistic_float32 if np.array_equal(logistic_float32(margins), served) else None
