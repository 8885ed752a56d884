"""Reads XGBoost's JSON model document into a TreeEnsemble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainers.base import MalformedModelError, UnsupportedModelError
from explainers.tree.build import CategorySet, EnsembleBuilder, TreeNodes
from explainers.tree.ensemble import TreeEnsemble

Float32Array = NDArray[np.float32]

TREE_BOOSTERS = ("gbtree", "dart")
LOGIT_BASE = frozenset({"binary:logistic", "reg:logistic"})
LOG_BASE = frozenset({"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"})
IDENTITY_BASE = frozenset(
    {
        "binary:logitraw", "binary:hinge", "multi:softmax", "multi:softprob",
        "rank:map", "rank:ndcg", "rank:pairwise",
        "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror",
        "reg:squarederror", "reg:squaredlogerror",
    }
)  # fmt: skip
"""How each objective turns the stored base_score into a margin."""


@dataclass(frozen=True, slots=True, eq=False)
class _Forest:
    trees: Sequence[Mapping[str, Any]]
    outputs: Sequence[int]
    weights: Float32Array | None
    """(T,) factors of the leaves (dart only)."""


def parse_xgboost(document: Mapping[str, Any], *, trees: int | None = None) -> TreeEnsemble:
    """The first `trees` trees (None: all) of the parsed JSON of `Booster.save_raw("json")`.

    The outputs are margins. Derived columns are the model's features in order. Raises
    UnsupportedModelError for gblinear, vector leaves and objectives unknown here, and
    MalformedModelError for anything that is no such document.
    """
    try:
        return _parse(document, trees)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise MalformedModelError(f"not an XGBoost model document: {error!r}") from error


def _parse(document: Mapping[str, Any], trees: int | None) -> TreeEnsemble:
    learner = document["learner"]
    forest = _forest(learner["gradient_booster"])
    used = len(forest.trees) if trees is None else trees
    if not 0 < used <= len(forest.trees):
        raise MalformedModelError(f"{used} trees asked for, the model has {len(forest.trees)}")
    builder = EnsembleBuilder(
        int(learner["learner_model_param"]["num_feature"]), base=_base_margin(learner)
    )
    for index in range(used):
        weight = None if forest.weights is None else forest.weights[index]
        builder.add_tree(
            _tree(forest.trees[index], weight=weight), output=int(forest.outputs[index])
        )
    return builder.build(float32_inputs=True, float32_sums=True)


def tree_model(booster: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a document's gradient_booster that holds the trees.

    Raises UnsupportedModelError for boosters of another kind than TREE_BOOSTERS.
    """
    if booster["name"] not in TREE_BOOSTERS:
        raise UnsupportedModelError(f"booster {booster['name']!r} has no trees")
    holder = booster["gbtree"] if booster["name"] == "dart" else booster
    model: Mapping[str, Any] = holder["model"]
    return model


def _forest(booster: Mapping[str, Any]) -> _Forest:
    model = tree_model(booster)
    is_dart = booster["name"] == "dart"
    weights = np.array(booster["weight_drop"], dtype=np.float32) if is_dart else None
    return _Forest(model["trees"], model["tree_info"], weights)


def _tree(tree: Mapping[str, Any], *, weight: np.float32 | None) -> TreeNodes:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise UnsupportedModelError("multi_output_tree: vector leaves are not supported")
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    return TreeNodes(
        left=tree["left_children"],
        right=tree["right_children"],
        column=tree["split_indices"],
        # Left is x < t; the neutral form has x <= threshold.
        threshold=np.nextafter(conditions, np.float32(-np.inf)),
        leaf_values=conditions if weight is None else conditions * weight,
        missing_left=np.array(tree["default_left"], dtype=np.int64) != 0,
        categories=_categories(tree),
    )


def _categories(tree: Mapping[str, Any]) -> dict[int, CategorySet]:
    codes = np.array(tree["categories"], dtype=np.int64)
    segments = zip(
        tree["categories_nodes"],
        tree["categories_segments"],
        tree["categories_sizes"],
        strict=True,
    )
    sets = {int(node): (codes[start : start + size], False) for node, start, size in segments}
    if sets.keys() != set(np.flatnonzero(tree["split_type"]).tolist()):
        raise MalformedModelError("category nodes and split types disagree")
    return sets


def _base_margin(learner: Mapping[str, Any]) -> Float32Array:
    parameters = learner["learner_model_param"]
    n_outputs = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    text = str(parameters["base_score"]).strip("[]")
    scores = np.array([float(part) for part in text.split(",")], dtype=np.float32)
    if len(scores) not in (1, n_outputs):
        raise MalformedModelError(f"{len(scores)} base scores for {n_outputs} outputs")
    return np.broadcast_to(_to_margin(learner["objective"]["name"], scores), n_outputs)


def _to_margin(objective: str, scores: Float32Array) -> Float32Array:
    if objective in IDENTITY_BASE:
        return scores
    if objective in LOGIT_BASE:
        return -_log(np.float32(1.0) / scores - np.float32(1.0))
    if objective in LOG_BASE:
        return _log(scores)
    raise UnsupportedModelError(f"XGBoost objective {objective!r} is not known here")


def _log(values: Float32Array) -> Float32Array:
    # numpy's float32 logarithm differs from the C library's in the last bit; the rounded double
    # does not.
    if not np.all(values > 0):
        raise MalformedModelError("base_score lies outside the objective's range")
    return np.log(values.astype(np.float64)).astype(np.float32)
