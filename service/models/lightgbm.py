"""LightGBM models: the served numbers from the library, the trees from its dump."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from explainers.base import (
    FloatArray,
    IdentityDerivation,
    Level,
    Link,
    MalformedModelError,
    OutputSpace,
    UnsupportedModelError,
)
from explainers.tree.lightgbm import parse_lightgbm
from service.models.base import (
    AssumedLevels,
    InputColumns,
    Served,
    Task,
    TreeForm,
    binary_scores,
)
from service.models.columns import (
    Levels,
    StoredColumns,
    as_numbers,
    check_steps_make_codes,
    chosen_names,
    input_columns,
    typed,
)
from service.models.errors import ModelLoadError, UnknownCategoriesError
from service.models.lightgbm_link import proven_link
from service.models.lightgbm_text import ModelText, read_model_text
from service.models.links import MarginLink
from service.models.objectives import (
    BINARY,
    FRACTION,
    LOG,
    MULTICLASS,
    VALUE,
    Objective,
    known_objective,
)

OBJECTIVES = {
    "binary": BINARY,
    "cross_entropy": FRACTION,
    "fair": VALUE,
    "gamma": LOG,
    "huber": VALUE,
    "lambdarank": VALUE,
    "mape": VALUE,
    "multiclass": MULTICLASS,
    "poisson": LOG,
    "quantile": VALUE,
    "rank_xendcg": VALUE,
    "regression": VALUE,
    "regression_l1": VALUE,
    "tweedie": LOG,
}
ANY_CODE = range(2**31)
ADVICE = {
    "cross_entropy_lambda": "its scores are no probabilities; train with cross_entropy",
    "multiclassova": "its class scores do not sum to one; train with multiclass",
}


@dataclass(eq=False)
class LightGBMModel:
    """A loaded Booster behind `NativeModel`; serves all trees in the file."""

    booster: Any
    columns: InputColumns
    task: Task
    n_classes: int
    output_space: OutputSpace
    link: Link
    iterations: int
    averaged: bool
    trees_used: int | None
    to_scores: MarginLink | None
    """The library's link, where ours is proven to give the same bits."""
    library: str = "lightgbm"
    format: str = "txt"
    classes: tuple[Level, ...] | None = None
    is_float32: bool = False

    def predict(self, X: FloatArray) -> Served:
        """Served numbers of (N, F) raw rows: float64."""
        outputs = self.margin(X)
        if self.link == "identity" and not self.averaged:
            return Served(outputs, outputs)
        value = self._value(X) if self.to_scores is None else self.to_scores(outputs)
        return Served(outputs, binary_scores(value[:, 0]) if self.task == "binary" else value)

    def evaluate(self, X: FloatArray) -> FloatArray:
        """(N, C) raw scores."""
        return self.margin(X)

    def _value(self, X: FloatArray) -> FloatArray:
        value: FloatArray = self.booster.predict(X, num_threads=1)
        return value.reshape(len(X), -1)

    def margin(self, X: FloatArray) -> FloatArray:
        """(N, C) raw scores; a random forest's are averaged over its iterations."""
        raw: FloatArray = self.booster.predict(X, num_threads=1, raw_score=True)
        margin = raw.reshape(len(X), -1)
        return margin / self.iterations if self.averaged else margin

    def form(self) -> TreeForm:
        """The trees that are served; UnsupportedModelError for linear trees."""
        return self._parsed

    @cached_property
    def _parsed(self) -> TreeForm:
        try:
            dump = self.booster.dump_model()
        except RecursionError as error:
            raise UnsupportedModelError("the trees are too deep for LightGBM's dump") from error
        except ValueError as error:
            raise MalformedModelError(f"LightGBM dumps no JSON for this model: {error}") from error
        ensemble = parse_lightgbm(dump)
        return TreeForm(ensemble, IdentityDerivation.over(ensemble.n_columns))


def load_lightgbm(
    data: bytes,
    *,
    names: tuple[str, ...] | None = None,
    categories: Mapping[str, Levels] | None = None,
    behind_steps: bool = False,
) -> LightGBMModel:
    """Load a model text. names and categories serve where it stores none; behind the steps of a
    pipeline its category columns need none.

    ModelLoadError for broken files, UnsupportedModelError for objectives that cannot be served.
    """
    text = read_model_text(data)
    objective = _objective(text)
    booster = _booster(data)
    if behind_steps:
        check_steps_make_codes(learned_from_pandas=bool(booster.pandas_categorical))
    stored = _stored_columns(text, booster, names=names, categories=categories or {})
    stored = as_numbers(stored) if behind_steps else stored
    return LightGBMModel(
        booster=booster,
        columns=input_columns(stored, categories=categories or {}, unknown="missing"),
        task=objective.task,
        n_classes=objective.n_classes(text.n_outputs),
        output_space=objective.output_space,
        link=objective.link,
        iterations=text.n_trees // text.n_outputs,
        averaged=text.averaged,
        trees_used=text.n_trees,
        to_scores=proven_link(text, objective.link),
    )


def dump_lightgbm(model: object) -> tuple[bytes, tuple[Level, ...] | None]:
    """A Booster or a scikit-learn wrapper as text up to its best iteration, and its classes."""
    from lightgbm import Booster, LGBMModel
    from sklearn.exceptions import NotFittedError

    if isinstance(model, Booster):
        return model.model_to_string().encode(), None
    if not isinstance(model, LGBMModel):
        raise ModelLoadError(f"{type(model).__qualname__} is no LightGBM model")
    if model.get_params().get("pred_early_stop"):
        raise ModelLoadError(
            "pred_early_stop is not stored in LightGBM's text; set it to False: it leaves out trees"
        )
    try:
        booster = model.booster_
    except NotFittedError as error:
        raise ModelLoadError(f"the model is not fitted: {error}") from error
    classes = getattr(model, "classes_", None)
    return booster.model_to_string().encode(), None if classes is None else tuple(classes.tolist())


def _objective(text: ModelText) -> Objective:
    if not text.objective:
        if text.n_outputs > 1:
            raise UnsupportedModelError("a custom objective with several outputs has no link")
        # The library serves the raw score when it does not know the objective.
        return VALUE
    name, *options = text.objective
    objective = known_objective(name, OBJECTIVES, advice=ADVICE)
    if "sqrt" in options:
        raise UnsupportedModelError("reg_sqrt squares the sum of the trees; train without it")
    for option in options:
        key, _, value = option.partition(":")
        if key == "sigmoid" and value != "1":
            raise UnsupportedModelError(f"sigmoid={value} rescales the log-odds; train with 1")
    return objective


def _booster(data: bytes) -> Any:  # noqa: ANN401  # lightgbm.Booster
    from lightgbm import Booster
    from lightgbm.basic import LightGBMError

    try:
        return Booster(model_str=data.decode("utf-8"))
    except (LightGBMError, ValueError) as error:
        raise ModelLoadError(f"LightGBM refuses the file: {error}") from error


def _stored_columns(
    text: ModelText,
    booster: Any,  # noqa: ANN401  # lightgbm.Booster
    *,
    names: tuple[str, ...] | None,
    categories: Mapping[str, Levels],
) -> StoredColumns:
    chosen = _names(text.names, names)
    trained = booster.params.get("categorical_feature", [])
    indexes = {index for index in trained if isinstance(index, int)}
    is_category = tuple(
        codes is not None or index in indexes for index, codes in enumerate(text.codes_seen)
    )
    lists = [tuple(levels) for levels in booster.pandas_categorical or []]
    codes = {
        name: text.codes_seen[index] or ()
        for index, name in enumerate(chosen)
        if is_category[index]
    }
    assigned = _assigned(lists, codes, {n: categories[n] for n in chosen if n in categories})
    for name, known in (assigned | {n: categories[n] for n in codes if n in categories}).items():
        _check_codes(name, codes[name], known)
    return StoredColumns(
        names=chosen,
        levels=tuple(assigned.get(name) for name in chosen),
        is_category=is_category,
        why_no_levels="the artifact stores no level names for it",
        names_are_given=names is not None and text.names == _default_names(len(chosen)),
        assumed=tuple(
            AssumedLevels(name, codes[name] or ANY_CODE)
            for name in assigned
            if name not in categories
        ),
    )


def _assigned(
    lists: list[Levels], codes: Mapping[str, tuple[int, ...]], given: Mapping[str, Levels]
) -> dict[str, Levels]:
    """The stored lists by category column, as plain training on unordered categories leaves them.

    The text reads the same when a column of codes was named as a category beside an ordered one,
    which has a list but no codes; so this holds only if the data agree (`AssumedLevels`).
    """
    if len(lists) != len(codes) or set(codes) <= set(given):
        _check_order(lists, list(given.values()))
        return {}
    return dict(zip(codes, lists, strict=True))


def _default_names(count: int) -> tuple[str, ...]:
    return tuple(f"Column_{index}" for index in range(count))


def _names(stored: tuple[str, ...], given: tuple[str, ...] | None) -> tuple[str, ...]:
    default = _default_names(len(stored))
    if given is not None and tuple("_".join(name.split(" ")) for name in given) == stored:
        # LightGBM stores blanks as underscores.
        return given
    return chosen_names(None if stored == default else stored, given=given, default=default)


def _check_codes(column: str, codes: tuple[int, ...], levels: Levels) -> None:
    if max(codes, default=-1) >= len(levels):
        raise UnknownCategoriesError(
            column, reason=f"the model knows code {max(codes)}, more than {len(levels)} levels have"
        )


def _check_order(stored: list[Levels], given: list[Levels]) -> None:
    # The text does not say whose lists they are: ordered pandas categories have one but are split
    # like numbers, integer codes are split by sets but have none.
    remaining = iter([typed(levels) for levels in given])
    for levels in stored:
        if typed(levels) not in remaining:
            raise UnknownCategoriesError(
                f"with levels {list(levels)}",
                reason="the artifact does not say which column these are of; name the levels of "
                "every category column, ordered ones too",
            )
