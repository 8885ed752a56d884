"""XGBoost models: the served numbers from the library, the trees from its file."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
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
    UnsupportedModelError,
)
from explainers.tree.xgboost import parse_xgboost
from service.models.base import InputColumns, Served, Task, TreeForm, binary_scores
from service.models.columns import (
    Levels,
    StoredColumns,
    as_numbers,
    check_steps_make_codes,
    chosen_names,
    input_columns,
)
from service.models.errors import ModelLoadError
from service.models.ubjson import read_ubjson
from service.models.xgboost_call import DenseMargins

Format = Literal["ubj", "json"]
Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Objective:
    task: Task
    output_space: OutputSpace
    link: Link


BINARY = _Objective("binary", "log_odds", "logit")
FRACTION = _Objective("regression", "log_odds", "logit")
MULTICLASS = _Objective("multiclass", "margin", "softmax")
LOG = _Objective("regression", "log", "log")
RAW = _Objective("regression", "raw", "identity")
OBJECTIVES = {
    "binary:logistic": BINARY,
    "binary:logitraw": RAW,
    "count:poisson": LOG,
    "multi:softmax": MULTICLASS,
    "multi:softprob": MULTICLASS,
    "rank:map": RAW,
    "rank:ndcg": RAW,
    "rank:pairwise": RAW,
    "reg:absoluteerror": RAW,
    "reg:gamma": LOG,
    "reg:logistic": FRACTION,
    "reg:pseudohubererror": RAW,
    "reg:quantileerror": RAW,
    "reg:squarederror": RAW,
    "reg:squaredlogerror": RAW,
    "reg:tweedie": LOG,
    "survival:aft": LOG,
    "survival:cox": LOG,
}
PROOF_MARGINS = 4096
ADVICE = {"binary:hinge": "it serves 0 or 1, no probability; train with binary:logistic"}


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
    document = read_ubjson(data) if format == "ubj" else _read_json(data)
    try:
        facts = _facts(document)
        stored = _stored_columns(document["learner"], names, categories or {})
        stored = _made_by_steps(stored, document["learner"]) if behind_steps else stored
        form = _form(document, facts.trees)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"not an XGBoost model file: {error!r}") from error
    booster = _booster(data, len(stored.names))
    return XGBoostModel(
        booster=booster,
        dense_margins=DenseMargins.proven(booster, len(stored.names), iterations=facts.iterations),
        logistic=_proven_logistic(booster, len(stored.names), facts.kind.link),
        objective=facts.objective,
        format=format,
        task=facts.kind.task,
        columns=input_columns(stored, categories=categories or {}, unknown="refuse"),
        n_classes={"binary": 2, "multiclass": facts.n_outputs, "regression": 1}[facts.kind.task],
        output_space=facts.kind.output_space,
        link=facts.kind.link,
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


@dataclass(frozen=True, slots=True)
class _Facts:
    objective: str
    n_outputs: int
    iterations: int
    trees: int
    trees_stored: int

    @property
    def kind(self) -> _Objective:
        """What the objective makes of the margins."""
        return OBJECTIVES[self.objective]


def _read_json(data: bytes) -> Any:  # noqa: ANN401  # what json.loads gives
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"broken JSON: {error}") from error


def _facts(document: Mapping[str, Any]) -> _Facts:
    learner = document["learner"]
    objective = learner["objective"]["name"]
    if objective not in OBJECTIVES:
        advice = ADVICE.get(objective, f"known are {', '.join(OBJECTIVES)}")
        raise UnsupportedModelError(f"objective {objective!r} cannot be served: {advice}")
    booster = learner["gradient_booster"]
    if booster["name"] not in ("gbtree", "dart"):
        raise UnsupportedModelError(
            f"booster {booster['name']!r} is not safe to share between threads; "
            "use a linear model of scikit-learn"
        )
    parameters = learner["learner_model_param"]
    if int(parameters.get("num_target", 1)) > 1:
        raise UnsupportedModelError("several targets in one model; register one model per target")
    n_outputs = max(int(parameters["num_class"]), 1)
    model = booster["model"] if booster["name"] == "gbtree" else booster["gbtree"]["model"]
    iterations, trees = _served(learner, model, n_outputs)
    return _Facts(objective, n_outputs, iterations, trees, trees_stored=len(model["trees"]))


def _served(
    learner: Mapping[str, Any], model: Mapping[str, Any], n_outputs: int
) -> tuple[int, int]:
    n_trees = len(model["trees"])
    parallel = max(int(model["gbtree_model_param"].get("num_parallel_tree", 1)), 1)
    starts = model.get("iteration_indptr")
    if starts is None:
        starts = range(0, n_trees + 1, parallel * n_outputs)
    best = learner.get("attributes", {}).get("best_iteration")
    iterations = len(starts) - 1 if best is None else int(best) + 1
    if not 0 < iterations < len(starts):
        raise ModelLoadError(f"{iterations} iterations to serve, the file has {len(starts) - 1}")
    return iterations, int(starts[iterations])


def _form(document: Mapping[str, Any], trees: int) -> TreeForm:
    try:
        # All trees, because the library reads the ones it does not serve too.
        n_columns = parse_xgboost(document).n_columns
        served = parse_xgboost(document, trees=trees)
    except MalformedModelError as error:
        raise ModelLoadError(str(error)) from error
    return TreeForm(served, IdentityDerivation.over(n_columns))


def _stored_columns(
    learner: Mapping[str, Any],
    names: tuple[str, ...] | None,
    categories: Mapping[str, Levels],
) -> StoredColumns:
    n_columns = int(learner["learner_model_param"]["num_feature"])
    own = tuple(learner.get("feature_names") or ()) or None
    types = tuple(learner.get("feature_types") or ()) or ("float",) * n_columns
    encodings = _encodings(learner) or [{"values": []}] * n_columns
    if not n_columns == len(types) == len(encodings) == len(own or types):
        raise ModelLoadError("column names, types and categories differ in number")
    default = tuple(f"f{index}" for index in range(n_columns))
    chosen = chosen_names(own, given=names, default=default)
    return StoredColumns(
        names=chosen,
        levels=tuple(
            _levels(encoding, categories.get(name))
            for name, encoding in zip(chosen, encodings, strict=True)
        ),
        is_category=tuple(kind == "c" for kind in types),
        why_no_levels="the artifact stores no level names (XGBoost stores ASCII ones only, "
        "and none for columns that were numbers in training)",
        names_are_given=own is None and names is not None,
    )


def _made_by_steps(stored: StoredColumns, learner: Mapping[str, Any]) -> StoredColumns:
    learned = any(len(encoding["values"]) for encoding in _encodings(learner))
    check_steps_make_codes(learned_from_pandas=learned)
    return as_numbers(stored)


def _encodings(learner: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """By column, the categories it learned from pandas; empty where the file has no such part."""
    booster = learner["gradient_booster"]
    model = booster["model"] if "model" in booster else booster["gbtree"]["model"]
    return model.get("cats", {}).get("enc") or []


def _levels(encoding: Mapping[str, Any], given: Levels | None) -> Levels | None:
    values = [int(value) for value in encoding["values"]]
    if "offsets" not in encoding:
        return tuple(values) or None
    text = bytes(value % 256 for value in values)
    ends = [int(end) for end in encoding["offsets"]]
    if text.isascii():
        return tuple(text[start:end].decode("ascii") for start, end in pairwise(ends)) or None
    # XGBoost counts characters but stores bytes, so it cuts such names short (seen in 3.2, from
    # pandas). What is left is enough to check the caller's list.
    if given is not None:
        names = [str(level) for level in given]
        whole = "".join(names).encode("utf-8")
        counted = [list(accumulate(map(len, parts), initial=0)) for parts in _spellings(names)]
        if ends not in counted or whole[: len(text)] != text:
            raise ModelLoadError(f"--categories lists {given}, which is not what XGBoost stored")
    return None


def _spellings(names: list[str]) -> tuple[list[str], list[bytes]]:
    return names, [name.encode("utf-8") for name in names]


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
    """Our logistic link if it equals the library's bit by bit on margins from -100 to 100.

    It saves the second library call of every prediction. None under another link.
    """
    if link != "logit":
        return None
    from explainers.tree.kernel import logistic_float32

    rows = np.zeros((PROOF_MARGINS, n_columns))
    shift = np.linspace(-100, 100, PROOF_MARGINS, dtype=np.float32)
    margins = booster.inplace_predict(
        rows, predict_type="margin", base_margin=shift, validate_features=False
    )
    served = booster.inplace_predict(rows, base_margin=shift, validate_features=False)
    return logistic_float32 if np.array_equal(logistic_float32(margins), served) else None
