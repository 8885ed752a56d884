"""Every rule of XGBoost's format: our values are brute force through the library itself, and
would not be if the rule were read otherwise."""

import json
from collections.abc import Callable
from typing import Any

import misreadings as misread
import numpy as np
import pytest
import trap_tables as table
import xgboost
from misreadings import Misreading
from stored_models import (
    Stored,
    assert_exact,
    assert_rule_matters,
    assert_trees_are_exact,
    stored,
)

from explainers.base import FloatArray
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.xgboost import parse_xgboost

COMMON = {"n_estimators": 12, "max_depth": 4, "n_jobs": 1, "random_state": 0}
BOOSTER = {"nthread": 1, "max_depth": 4, "seed": 0}
DART = {"booster": "dart", "rate_drop": 0.5}
HASTY = {"n_estimators": 60, "learning_rate": 1.5, "early_stopping_rounds": 2}
PARALLEL = {"num_parallel_tree": 3, "subsample": 0.6}
DATA = xgboost.DMatrix(table.GAPPY, table.TARGET)
CODES = {"colour": tuple(range(9)), "place": tuple(range(70))}
"""More levels than training has codes."""

Maker = Callable[[], Stored]


def regression(y: Any = table.TARGET, rows: FloatArray = table.GAPPY, **options: Any) -> Stored:
    return fitted(xgboost.XGBRegressor, y, rows, **options)


def classifier(y: Any = table.IS_HIGH, rows: FloatArray = table.GAPPY, **options: Any) -> Stored:
    return fitted(xgboost.XGBClassifier, y, rows, **options)


def fitted(kind: Any, y: Any, rows: FloatArray, *, fit: Any = None, **options: Any) -> Stored:
    model = kind(**(COMMON | options)).fit(rows, y, **(fit or {}))
    return stored(model, rows, lambda X: model.predict(X, output_margin=True))


def stopped(kind: Callable[..., Stored], y: Any, checked: Any, **options: Any) -> Stored:
    fit = {"eval_set": [(table.GAPPY, checked)], "verbose": False}
    model = kind(y, fit=fit, **(HASTY | options))
    assert model.native.trees_used < model.native.trees_stored
    return model


def with_levels(y: Any = table.CODED_TARGET, **options: Any) -> Stored:
    kind = xgboost.XGBClassifier if y is table.CODED_THREE else xgboost.XGBRegressor
    model = kind(enable_categorical=True, **(COMMON | {"max_cat_to_onehot": 1} | options))
    model.fit(table.framed(table.CODED), y)
    return stored(model, table.CODED, lambda X: model.predict(table.framed(X), output_margin=True))


def with_codes(**options: Any) -> Stored:
    """Levels by number, some of them beyond every code of training."""

    def matrix(X: FloatArray, y: Any = None) -> xgboost.DMatrix:
        return xgboost.DMatrix(X, y, feature_types=["q", "c", "q", "c"], enable_categorical=True)

    parameters = BOOSTER | {"max_cat_to_onehot": 1} | options
    booster = xgboost.train(parameters, matrix(table.CODED, table.CODED_TARGET), 12)
    return stored(
        booster,
        table.CODED,
        lambda X: booster.predict(matrix(X), output_margin=True),
        names=table.NAMES,
        categories=CODES,
    )


def trained(booster: xgboost.Booster) -> Stored:
    return stored(
        booster,
        table.GAPPY,
        lambda X: booster.predict(xgboost.DMatrix(X), output_margin=True),
    )


def fitted_without_gaps() -> Stored:
    model = xgboost.XGBRegressor(**COMMON).fit(table.FILLED, table.TARGET)
    return stored(model, table.GAPPY, lambda X: model.predict(X, output_margin=True))


def continued_and_stopped() -> Stored:
    data = xgboost.DMatrix(table.GAPPY, table.TARGET)
    first = xgboost.train(BOOSTER | PARALLEL, data, 3)
    booster = xgboost.train(BOOSTER, data, 6, xgb_model=first)
    booster.set_attr(best_iteration="4")
    return stored(
        booster,
        table.GAPPY,
        lambda X: booster.predict(xgboost.DMatrix(X), output_margin=True, iteration_range=(0, 5)),
    )


def survival() -> Stored:
    data = xgboost.DMatrix(table.GAPPY)
    data.set_info(label_lower_bound=table.POSITIVE, label_upper_bound=table.POSITIVE)
    return trained(xgboost.train(BOOSTER | {"objective": "survival:aft"}, data, 6))


def ranker() -> Stored:
    fit = {"qid": np.repeat(np.arange(10), table.N // 10)}
    return fitted(xgboost.XGBRanker, table.IS_HIGH, table.GAPPY, fit=fit)


def document_of(model: Stored) -> dict[str, Any]:
    return json.loads(model.native.booster.save_raw("json"))


def all_trees(model: Stored) -> TreeEnsemble:
    return parse_xgboost(document_of(model))


def without_weights(model: Stored) -> TreeEnsemble:
    document = document_of(model)
    booster = document["learner"]["gradient_booster"]
    assert len(set(booster["weight_drop"])) > 1
    booster["weight_drop"] = [1.0] * len(booster["weight_drop"])
    return parse_xgboost(document, trees=model.native.trees_used)


def base_as_it_is_stored(model: Stored) -> TreeEnsemble:
    document = document_of(model)
    document["learner"]["objective"]["name"] = "reg:squarederror"
    return parse_xgboost(document)


RULES: dict[str, tuple[Maker, Misreading]] = {
    "less than, in float32": (regression, misread.lax_comparison),
    "a step below is another threshold": (regression, misread.strict_float32_comparison),
    "numbers are cast to float32": (regression, misread.other_cast),
    "yes is the left child": (regression, misread.swapped_sides),
    "missing goes where default_left says": (regression, misread.other_missing_direction),
    "missing at prediction only": (fitted_without_gaps, misread.other_missing_direction),
    "base_score of squared errors is as it is": (
        lambda: regression(table.TARGET + 3), misread.no_base,
    ),
    "base_score of logitraw is as it is": (
        lambda: classifier(objective="binary:logitraw", base_score=0.3), misread.no_base,
    ),
    "each class has its base_score": (
        lambda: classifier(table.THREE), misread.one_base_for_all,
    ),
    "tree_info names a tree's class": (
        lambda: classifier(table.THREE), misread.trees_of_another_output,
    ),
    "num_parallel_tree trees of a class in a row": (
        lambda: classifier(table.THREE, **PARALLEL), misread.trees_of_another_output,
    ),
    "codes in the set go right": (with_levels, misread.swapped_members),
    "a set of one code goes right": (
        lambda: with_levels(max_cat_to_onehot=100), misread.swapped_members,
    ),
    "sets of several classes": (
        lambda: with_levels(table.CODED_THREE), misread.swapped_members,
    ),
    "missing levels go where default_left says": (
        with_levels, misread.other_missing_direction_of_categories,
    ),
    "codes beyond the set go left": (with_codes, misread.other_out_of_range_direction),
    "codes beyond a set of one code go left": (
        lambda: with_codes(max_cat_to_onehot=100), misread.other_out_of_range_direction,
    ),
}  # fmt: skip

DOCUMENT_RULES: dict[str, tuple[Maker, Callable[[Stored], TreeEnsemble]]] = {
    "base_score of logistic goes through the logit": (
        lambda: classifier(base_score=0.013), base_as_it_is_stored,
    ),
    "base_score of shares goes through the logit": (
        lambda: regression(table.SHARE, objective="reg:logistic"), base_as_it_is_stored,
    ),
    "base_score of poisson goes through the logarithm": (
        lambda: regression(table.POSITIVE, objective="count:poisson"), base_as_it_is_stored,
    ),
    "base_score of gamma goes through the logarithm": (
        lambda: regression(table.POSITIVE, objective="reg:gamma"), base_as_it_is_stored,
    ),
    "base_score of tweedie goes through the logarithm": (
        lambda: regression(table.POSITIVE, objective="reg:tweedie"), base_as_it_is_stored,
    ),
    "weight_drop multiplies the leaves": (lambda: regression(**DART), without_weights),
    "weight_drop of several classes": (
        lambda: classifier(table.THREE, **DART), without_weights,
    ),
    "weight_drop of parallel trees": (
        lambda: regression(**DART, **PARALLEL), without_weights,
    ),
    "weight_drop above category sets": (lambda: with_levels(**DART), without_weights),
    "dart serves up to best_iteration": (
        lambda: stopped(regression, table.TARGET, table.NOISE, booster="dart", rate_drop=0.3),
        all_trees,
    ),
    "best_iteration": (
        lambda: stopped(regression, table.TARGET, table.TARGET + table.NOISE), all_trees,
    ),
    "best_iteration counts parallel trees once": (
        lambda: stopped(regression, table.TARGET, table.TARGET + table.NOISE, **PARALLEL),
        all_trees,
    ),
    "best_iteration counts the classes' trees once": (
        lambda: stopped(classifier, table.THREE, np.roll(table.THREE, 1), **PARALLEL), all_trees,
    ),
    "best_iteration where iterations are unequal": (continued_and_stopped, all_trees),
}  # fmt: skip

ORDINARY: dict[str, Maker] = {
    "monotone_constraints": lambda: regression(monotone_constraints=(1, 0, -1, 0)),
    "max_delta_step": lambda: classifier(max_delta_step=0.1),
    "scale_pos_weight": lambda: classifier(scale_pos_weight=5.0),
    "lossguide": lambda: regression(grow_policy="lossguide", max_leaves=9, max_depth=0),
    "exact": lambda: regression(tree_method="exact", gamma=1.0),
    "approx": lambda: regression(tree_method="approx"),
    "deep": lambda: regression(max_depth=14, n_estimators=5, min_child_weight=0),
    "quantile": lambda: regression(objective="reg:quantileerror", quantile_alpha=0.3),
    "absolute": lambda: regression(objective="reg:absoluteerror"),
    "pseudo-huber": lambda: regression(objective="reg:pseudohubererror"),
    "squared logarithm": lambda: regression(table.POSITIVE, objective="reg:squaredlogerror"),
    "cox": lambda: regression(table.POSITIVE, objective="survival:cox"),
    "accelerated failure time": survival,
    "ranker": ranker,
    "softmax": lambda: classifier(table.THREE, objective="multi:softmax"),
    "rounds of a forest": lambda: fitted(xgboost.XGBRFRegressor, table.TARGET, table.GAPPY),
    "custom objective": lambda: regression(
        objective=lambda truth, raw: (raw - truth, np.ones_like(raw))
    ),
    "dart, forest weights": lambda: regression(
        **DART, normalize_type="forest", sample_type="weighted", one_drop=True
    ),
    "dart of three classes, parallel, stopped": lambda: stopped(
        classifier, table.THREE, np.roll(table.THREE, 1), **DART, **PARALLEL
    ),
    "max_cat_threshold": lambda: with_levels(max_cat_threshold=3),
    "sets of approx": lambda: with_levels(tree_method="approx"),
    "sets beside monotone columns": lambda: with_levels(monotone_constraints=(1, 0, -1, 0)),
    "some of the trees": lambda: trained(xgboost.train(BOOSTER, DATA, 10)[1:9:2]),
    "some of dart's trees": lambda: trained(xgboost.train(BOOSTER | DART, DATA, 10)[2:7]),
    "dart after trees": lambda: trained(
        xgboost.train(BOOSTER | DART, DATA, 4, xgb_model=xgboost.train(BOOSTER, DATA, 4))
    ),
}


@pytest.mark.parametrize(("make", "misreading"), RULES.values(), ids=RULES)
def test_rule_of_the_trees_is_kept(make: Maker, misreading: Misreading) -> None:
    model = make()
    assert_exact(model)
    assert_rule_matters(model, misreading(model.trees))


@pytest.mark.parametrize(("make", "misreading"), DOCUMENT_RULES.values(), ids=DOCUMENT_RULES)
def test_rule_of_the_document_is_kept(
    make: Maker, misreading: Callable[[Stored], TreeEnsemble]
) -> None:
    model = make()
    assert_exact(model)
    assert_rule_matters(model, misreading(model))


@pytest.mark.parametrize("make", ORDINARY.values(), ids=ORDINARY)
def test_setting_that_needs_no_rule_of_its_own_is_exact(make: Maker) -> None:
    assert_exact(make())


def test_codes_are_cut_to_whole_numbers() -> None:
    model = with_codes()
    whole, parts = model.edges(24, 1), model.edges(24, 1)
    parts[:, [1, 3]] += 0.7
    explainer = model.explainer(model.edges(16, 2))
    np.testing.assert_array_equal(model.library(parts), model.library(whole))
    np.testing.assert_array_equal(explainer.explain(parts).values, explainer.explain(whole).values)


def test_several_targets_are_read_right_though_not_served() -> None:
    y = np.column_stack([table.TARGET, -3 * table.POSITIVE])
    model = xgboost.XGBRegressor(**COMMON).fit(table.GAPPY, y)
    trees = parse_xgboost(json.loads(model.get_booster().save_raw("json")))
    assert_trees_are_exact(
        trees, table.GAPPY, lambda X: np.asarray(model.predict(X), dtype=np.float64)
    )
