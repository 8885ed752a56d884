"""What an XGBoost model file says of itself beside its trees: objective, iterations, columns."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

from explainers.base import UnsupportedModelError
from explainers.tree.xgboost import TREE_BOOSTERS, tree_model
from service.models.columns import (
    Levels,
    StoredColumns,
    as_numbers,
    check_steps_make_codes,
    chosen_names,
)
from service.models.errors import ModelLoadError
from service.models.objectives import (
    BINARY,
    FRACTION,
    LOG,
    MULTICLASS,
    VALUE,
    Objective,
    known_objective,
)
from service.models.ubjson import read_ubjson

Format = Literal["ubj", "json"]

OBJECTIVES = {
    "binary:logistic": BINARY,
    "binary:logitraw": VALUE,
    "count:poisson": LOG,
    "multi:softmax": MULTICLASS,
    "multi:softprob": MULTICLASS,
    "rank:map": VALUE,
    "rank:ndcg": VALUE,
    "rank:pairwise": VALUE,
    "reg:absoluteerror": VALUE,
    "reg:gamma": LOG,
    "reg:logistic": FRACTION,
    "reg:pseudohubererror": VALUE,
    "reg:quantileerror": VALUE,
    "reg:squarederror": VALUE,
    "reg:squaredlogerror": VALUE,
    "reg:tweedie": LOG,
    "survival:aft": LOG,
    "survival:cox": LOG,
}
ADVICE = {"binary:hinge": "it serves 0 or 1, no probability; train with binary:logistic"}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is served: the objective, and so many iterations and trees of those stored."""

    objective_name: str
    objective: Objective
    n_outputs: int
    iterations: int
    trees: int
    trees_stored: int


def read_document(data: bytes, format: Format) -> Any:  # noqa: A002, ANN401  # what json.loads gives
    """The parsed document of a saved Booster; ModelLoadError for broken bytes."""
    if format == "ubj":
        return read_ubjson(data)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"broken JSON: {error}") from error


def facts_of(document: Mapping[str, Any]) -> FileFacts:
    """The facts of a document; UnsupportedModelError for kinds of models that cannot be served.

    KeyError and its like where it is no model's.
    """
    learner = document["learner"]
    name = learner["objective"]["name"]
    objective = known_objective(name, OBJECTIVES, advice=ADVICE)
    booster = learner["gradient_booster"]
    if booster["name"] not in TREE_BOOSTERS:
        raise UnsupportedModelError(
            f"booster {booster['name']!r} is not safe to share between threads; "
            "use a linear model of scikit-learn"
        )
    parameters = learner["learner_model_param"]
    if int(parameters.get("num_target", 1)) > 1:
        raise UnsupportedModelError("several targets in one model; register one model per target")
    n_outputs = max(int(parameters["num_class"]), 1)
    model = tree_model(booster)
    iterations, trees = _served(learner, model, n_outputs)
    return FileFacts(name, objective, n_outputs, iterations, trees, len(model["trees"]))


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


def columns_of(
    document: Mapping[str, Any],
    *,
    names: tuple[str, ...] | None,
    categories: Mapping[str, Levels],
    behind_steps: bool,
) -> StoredColumns:
    """The columns of a document whose facts are known; as numbers behind the steps of a pipeline.

    KeyError and its like where it is no model's; ModelLoadError where it contradicts itself, or
    what the caller says.
    """
    learner = document["learner"]
    stored = _stored_columns(learner, names, categories)
    if not behind_steps:
        return stored
    learned = any(len(encoding["values"]) for encoding in _encodings(learner))
    check_steps_make_codes(learned_from_pandas=learned)
    return as_numbers(stored)


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


def _encodings(learner: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """By column, the categories it learned from pandas; empty where the file has no such part."""
    return tree_model(learner["gradient_booster"]).get("cats", {}).get("enc") or []


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
