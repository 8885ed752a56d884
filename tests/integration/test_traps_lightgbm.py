"""Every rule of LightGBM's format: our values are brute force through the library itself, and
would not be if the rule were read otherwise."""

from collections.abc import Callable
from typing import Any

import lightgbm
import misreadings as misread
import numpy as np
import pytest
import trap_tables as table
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
from explainers.tree.lightgbm import parse_lightgbm
from service.models.errors import ModelLoadError
from service.models.formats import artifact_of_model, load_model

ROUNDS = 12
COMMON = {
    "n_estimators": ROUNDS,
    "num_leaves": 12,
    "min_child_samples": 5,
    "n_jobs": 1,
    "random_state": 0,
    "verbose": -1,
}
BOOSTER = {"num_leaves": 12, "min_data_in_leaf": 5, "num_threads": 1, "seed": 0, "verbose": -1}
SENSITIVE = {"cat_smooth": 1, "min_data_per_group": 5, "cat_l2": 1}
FOREST = {"boosting_type": "rf", "subsample": 0.6, "subsample_freq": 1}
DART = {"boosting_type": "dart", "drop_rate": 0.5, "skip_drop": 0.1}
CODES = {"colour": tuple(range(9)), "place": tuple(range(70))}
"""More levels than training has codes."""

Maker = Callable[[], Stored]


def regression(
    y: Any = table.TARGET, rows: FloatArray = table.GAPPY, *, seen: Any = None, **options: Any
) -> Stored:
    """`seen`: the rows of training, where predictions are asked for others."""
    return fitted(lightgbm.LGBMRegressor, y, rows, seen=seen, **options)


def classifier(y: Any = table.IS_HIGH, rows: FloatArray = table.GAPPY, **options: Any) -> Stored:
    return fitted(lightgbm.LGBMClassifier, y, rows, **options)


def fitted(
    kind: Any, y: Any, rows: FloatArray, *, seen: Any = None, fit: Any = None, **options: Any
) -> Stored:
    model = kind(**(COMMON | options)).fit(rows if seen is None else seen, y, **(fit or {}))
    divisor = ROUNDS if options.get("boosting_type") == "rf" else 1
    return stored(model, rows, lambda X: model.predict(X, raw_score=True) / divisor)


def trained(y: Any, **options: Any) -> Stored:
    booster = lightgbm.train(BOOSTER | options, lightgbm.Dataset(table.GAPPY, y), ROUNDS)
    return stored(booster, table.GAPPY, lambda X: booster.predict(X, raw_score=True))


def continued(**options: Any) -> Stored:
    data = lightgbm.Dataset(table.GAPPY, table.TARGET, free_raw_data=False)
    first = lightgbm.train(BOOSTER, data, 5)
    booster = lightgbm.train(BOOSTER | options, data, 5, init_model=first)
    return stored(booster, table.GAPPY, lambda X: booster.predict(X, raw_score=True))


def with_levels(y: Any = table.CODED_TARGET, **options: Any) -> Stored:
    kind = lightgbm.LGBMClassifier if y is table.CODED_THREE else lightgbm.LGBMRegressor
    model = kind(**(COMMON | SENSITIVE | options)).fit(table.framed(table.CODED), y)
    return stored(model, table.CODED, lambda X: model.predict(table.framed(X), raw_score=True))


def with_codes(**options: Any) -> Stored:
    """Levels by number, some of them beyond every code of training."""
    data = lightgbm.Dataset(table.CODED, table.CODED_TARGET, categorical_feature=[1, 3])
    booster = lightgbm.train(BOOSTER | SENSITIVE | options, data, ROUNDS)
    return stored(
        booster,
        table.CODED,
        lambda X: booster.predict(X, raw_score=True),
        names=table.NAMES,
        categories=CODES,
    )


def ranker(objective: str) -> Stored:
    groups = {"group": [table.N // 10] * 10}
    return fitted(lightgbm.LGBMRanker, table.IS_HIGH, table.GAPPY, fit=groups, objective=objective)


RULES: dict[str, tuple[Maker, Misreading]] = {
    "up to the threshold": (regression, misread.strict_comparison),
    "thresholds and numbers are float64": (regression, misread.other_cast),
    "yes is the left child": (regression, misread.swapped_sides),
    "missing_type NaN: missing goes where default_left says": (
        regression, misread.other_missing_direction,
    ),
    "missing_type None: missing at prediction only is 0": (
        lambda: regression(seen=table.FILLED), misread.nan_stays_missing,
    ),
    "missing_type None: missing is 0 where use_missing is off": (
        lambda: regression(rows=table.ZEROS, use_missing=False), misread.nan_stays_missing,
    ),
    "missing_type Zero: 0 and all but 0 are missing": (
        lambda: regression(rows=table.ZEROS, zero_as_missing=True), misread.zero_is_a_number,
    ),
    "missing_type Zero: they go where default_left says": (
        lambda: regression(rows=table.ZEROS, zero_as_missing=True),
        misread.other_missing_direction,
    ),
    "missing_type Zero of several classes": (
        lambda: classifier(table.THREE, table.ZEROS, zero_as_missing=True),
        misread.zero_is_a_number,
    ),
    "without zero_as_missing 0 is a number": (
        lambda: regression(rows=table.ZEROS), misread.zero_is_missing_too,
    ),
    "trees take turns over the classes": (
        lambda: classifier(table.THREE), misread.trees_of_another_output,
    ),
    "rf is the mean of its trees": (lambda: regression(**FOREST), misread.undivided),
    "rf of two classes is the mean of its trees": (
        lambda: classifier(**FOREST), misread.undivided,
    ),
    "rf of several classes is the mean of its iterations": (
        lambda: classifier(table.THREE, **FOREST), misread.undivided,
    ),
    "dart's weights are in the leaves": (lambda: regression(**DART), misread.one_tree_less),
    "the mean is in the leaves": (
        lambda: regression(table.TARGET + 3), misread.one_tree_less,
    ),
    "codes in the set go left": (with_levels, misread.swapped_members),
    "a set of one code goes left": (
        lambda: with_levels(max_cat_to_onehot=100), misread.swapped_members,
    ),
    "sets of several classes": (
        lambda: with_levels(table.CODED_THREE), misread.swapped_members,
    ),
    "sets under dart": (lambda: with_levels(**DART), misread.swapped_members),
    "missing levels go right": (with_levels, misread.other_missing_direction_of_categories),
    "missing levels go right where use_missing is off": (
        lambda: with_levels(use_missing=False), misread.other_missing_direction_of_categories,
    ),
    "missing levels go right where 0 is missing": (
        lambda: with_levels(zero_as_missing=True), misread.other_missing_direction_of_categories,
    ),
    "codes beyond the set go right": (with_codes, misread.other_out_of_range_direction),
}  # fmt: skip

ORDINARY: dict[str, Maker] = {
    "binary": classifier,
    "goss": lambda: regression(data_sample_strategy="goss", learning_rate=0.3),
    "extra_trees": lambda: regression(extra_trees=True),
    "path_smooth": lambda: regression(path_smooth=3.0),
    "boost_from_average off": lambda: classifier(boost_from_average=False),
    "is_unbalance": lambda: classifier(is_unbalance=True),
    "scale_pos_weight": lambda: classifier(scale_pos_weight=3.0),
    "monotone_constraints": lambda: regression(monotone_constraints=[1, 0, -1, 0]),
    "interaction_constraints": lambda: regression(interaction_constraints=[[0, 1], [2, 3]]),
    "max_delta_step": lambda: classifier(max_delta_step=0.1),
    "quantized gradients": lambda: regression(use_quantized_grad=True),
    "every leaf a row": lambda: regression(num_leaves=200, min_child_samples=1),
    "max_cat_threshold": lambda: with_levels(max_cat_threshold=3),
    "xgboost_dart_mode": lambda: classifier(table.THREE, **DART, xgboost_dart_mode=True),
    "cross_entropy": lambda: trained(table.SHARE, objective="cross_entropy"),
    "poisson": lambda: regression(table.POSITIVE, objective="poisson"),
    "tweedie": lambda: regression(table.POSITIVE, objective="tweedie"),
    "gamma": lambda: regression(table.POSITIVE, objective="gamma"),
    "quantile": lambda: regression(objective="quantile", alpha=0.2),
    "huber": lambda: regression(objective="huber", alpha=0.5),
    "fair": lambda: regression(objective="fair"),
    "mape": lambda: regression(table.POSITIVE + 2, objective="mape"),
    "regression_l1": lambda: regression(objective="regression_l1"),
    "lambdarank": lambda: ranker("lambdarank"),
    "rank_xendcg": lambda: ranker("rank_xendcg"),
    "custom objective": lambda: regression(
        objective=lambda truth, raw: (raw - truth, np.ones_like(raw))
    ),
    "trees after trees": continued,
    "dart after trees": lambda: continued(boosting="dart", drop_rate=0.5),
    "numbers around the smallest that is not 0": lambda: regression(rows=table.GAPPY * 2e-35),
    "numbers around the smallest that is not missing": lambda: regression(
        rows=table.GAPPY * 2e-35, zero_as_missing=True
    ),
}


@pytest.mark.parametrize(("make", "misreading"), RULES.values(), ids=RULES)
def test_rule_of_the_trees_is_kept(make: Maker, misreading: Misreading) -> None:
    model = make()
    assert_exact(model)
    assert_rule_matters(model, misreading(model.trees))


@pytest.mark.parametrize("make", ORDINARY.values(), ids=ORDINARY)
def test_setting_that_needs_no_rule_of_its_own_is_exact(make: Maker) -> None:
    assert_exact(make())


def test_trees_stop_at_the_best_iteration() -> None:
    booster = lightgbm.train(
        BOOSTER | {"learning_rate": 1.2},
        lightgbm.Dataset(table.GAPPY, table.TARGET),
        60,
        valid_sets=[lightgbm.Dataset(table.GAPPY, table.TARGET + table.NOISE)],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
        keep_training_booster=True,
    )
    model = stored(booster, table.GAPPY, lambda X: booster.predict(X, raw_score=True))
    assert_exact(model)
    every = parse_lightgbm(booster.dump_model(num_iteration=booster.current_iteration()))
    assert every.n_trees > model.trees.n_trees
    assert_rule_matters(model, every)


def test_codes_are_cut_to_whole_numbers() -> None:
    model = with_codes()
    whole, parts = model.edges(24, 1), model.edges(24, 1)
    parts[:, [1, 3]] += 0.7
    explainer = model.explainer(model.edges(16, 2))
    np.testing.assert_array_equal(model.library(parts), model.library(whole))
    np.testing.assert_array_equal(explainer.explain(parts).values, explainer.explain(whole).values)


def test_one_tree_a_class_is_read_right_though_ova_is_not_served() -> None:
    parameters = BOOSTER | {"objective": "multiclassova", "num_class": 3}
    booster = lightgbm.train(parameters, lightgbm.Dataset(table.GAPPY, table.THREE), ROUNDS)
    trees: TreeEnsemble = parse_lightgbm(booster.dump_model())
    assert_trees_are_exact(trees, table.GAPPY, lambda X: booster.predict(X, raw_score=True))


def test_predictions_that_leave_out_trees_are_refused_by_name() -> None:
    options = COMMON | {
        "n_estimators": 40,
        "pred_early_stop_freq": 2,
        "pred_early_stop_margin": 0.5,
    }
    model = lightgbm.LGBMClassifier(pred_early_stop=True, **options)
    hasty = model.fit(table.GAPPY, table.IS_HIGH).predict_proba(table.GAPPY)
    with pytest.raises(ModelLoadError, match="pred_early_stop is not stored"):
        artifact_of_model(model)
    model.set_params(pred_early_stop=False)
    served = load_model(artifact_of_model(model)).predict(table.GAPPY).scores
    np.testing.assert_array_equal(served, model.predict_proba(table.GAPPY))
    assert np.abs(served - hasty).max() > 0.01
