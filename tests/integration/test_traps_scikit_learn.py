"""Every rule of scikit-learn's trees: our values are brute force through the library itself, and
would not be if the rule were read otherwise."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import misreadings as misread
import numpy as np
import pytest
import trap_tables as table
from misreadings import Misreading
from sklearn import ensemble, linear_model, tree
from stored_models import Stored, assert_exact, assert_rule_matters, stored

from explainers.base import FloatArray, UnsupportedModelError
from explainers.tree.ensemble import TreeEnsemble
from service.models.formats import artifact_of_model, load_model

TREE = {"max_depth": 5, "random_state": 0}
FOREST = {"n_estimators": 9, "max_depth": 5, "random_state": 0}
BOOSTED = {"n_estimators": 9, "random_state": 0}
WHOLE_TARGET = table.WHOLE[:, 0] * table.WHOLE[:, 1] + table.WHOLE[:, 2]

Maker = Callable[[], Stored]


def fitted(
    estimator: Any, y: Any = table.TARGET, rows: FloatArray = table.GAPPY, *, seen: Any = None
) -> Stored:
    """`seen`: the rows of training, where predictions are asked for others."""
    estimator.fit(rows if seen is None else seen, y)
    return stored(estimator, rows, outputs_of(estimator))


def outputs_of(estimator: Any) -> Callable[[FloatArray], FloatArray]:
    if hasattr(estimator, "decision_function"):
        return estimator.decision_function
    if hasattr(estimator, "predict_proba"):
        return lambda X: shares(estimator.predict_proba(X))
    if isinstance(estimator, linear_model.PoissonRegressor | linear_model.GammaRegressor):
        return lambda X: np.log(estimator.predict(X))
    return estimator.predict


def shares(probabilities: FloatArray) -> FloatArray:
    return probabilities[:, 1:] if probabilities.shape[1] == 2 else probabilities


def boosted(y: Any = table.TARGET, **options: Any) -> Stored:
    is_classifier = y is table.IS_HIGH or y is table.THREE
    name = f"GradientBoosting{'Classifier' if is_classifier else 'Regressor'}"
    return fitted(getattr(ensemble, name)(**(BOOSTED | options)), y, table.FILLED)


def without_learning_rate(trees: TreeEnsemble) -> TreeEnsemble:
    return replace(trees, leaf_values=trees.leaf_values * 10)


def one_more_tree(trees: TreeEnsemble) -> TreeEnsemble:
    return replace(trees, divisor=trees.divisor + 1)


RULES: dict[str, tuple[Maker, Misreading]] = {
    "up to the threshold": (
        lambda: fitted(tree.DecisionTreeRegressor(**TREE), WHOLE_TARGET, table.WHOLE),
        misread.strict_comparison,
    ),
    "numbers are cast to float32, thresholds are not": (
        lambda: fitted(ensemble.RandomForestRegressor(**FOREST), WHOLE_TARGET, table.WHOLE),
        misread.other_cast,
    ),
    "float32 numbers of random splits": (
        lambda: fitted(ensemble.ExtraTreesRegressor(**FOREST)), misread.other_cast,
    ),
    "missing goes where missing_go_to_left says": (
        lambda: fitted(tree.DecisionTreeClassifier(**TREE), table.IS_HIGH),
        misread.other_missing_direction,
    ),
    "missing goes where missing_go_to_left says, in forests": (
        lambda: fitted(ensemble.RandomForestClassifier(**FOREST), table.THREE),
        misread.missing_to_the_right,
    ),
    "missing goes where missing_go_to_left says, in random splits": (
        lambda: fitted(ensemble.ExtraTreesClassifier(**FOREST), table.IS_HIGH),
        misread.other_missing_direction,
    ),
    "missing at prediction only": (
        lambda: fitted(ensemble.RandomForestRegressor(**FOREST), seen=table.FILLED),
        misread.other_missing_direction,
    ),
    "a forest is the mean of its trees": (
        lambda: fitted(ensemble.RandomForestRegressor(**FOREST)), one_more_tree,
    ),
    "a leaf holds the shares of all classes": (
        lambda: fitted(ensemble.RandomForestClassifier(**FOREST), table.THREE),
        misread.outputs_in_another_order,
    ),
    "boosting starts from the mean": (
        lambda: boosted(table.TARGET + 3), misread.no_base,
    ),
    "boosting starts from the log-odds": (lambda: boosted(table.IS_HIGH), misread.no_base),
    "boosting starts from each class's own": (
        lambda: boosted(table.THREE), misread.one_base_for_all,
    ),
    "boosting scales its leaves": (boosted, without_learning_rate),
    "stages have a tree for each class": (
        lambda: boosted(table.THREE), misread.trees_of_another_output,
    ),
}  # fmt: skip

ORDINARY: dict[str, Maker] = {
    "one random tree": lambda: fitted(tree.ExtraTreeRegressor(**TREE)),
    "one random tree of classes": lambda: fitted(tree.ExtraTreeClassifier(**TREE), table.THREE),
    "large whole numbers": lambda: fitted(
        ensemble.RandomForestRegressor(**FOREST), WHOLE_TARGET, table.WHOLE + 1e7
    ),
    "absolute errors": lambda: fitted(
        ensemble.RandomForestRegressor(criterion="absolute_error", **FOREST), rows=table.FILLED
    ),
    "poisson": lambda: fitted(
        ensemble.RandomForestRegressor(criterion="poisson", **FOREST), table.POSITIVE, table.FILLED
    ),
    "monotonic_cst": lambda: fitted(
        ensemble.RandomForestClassifier(monotonic_cst=[1, 0, -1, 0], **FOREST),
        table.IS_HIGH,
        table.FILLED,
    ),
    "class_weight": lambda: fitted(
        ensemble.RandomForestClassifier(class_weight="balanced_subsample", **FOREST), table.IS_HIGH
    ),
    "ccp_alpha": lambda: fitted(ensemble.RandomForestRegressor(ccp_alpha=0.01, **FOREST)),
    "boosting by quantile": lambda: boosted(loss="quantile", alpha=0.3),
    "boosting by huber": lambda: boosted(loss="huber"),
    "boosting by absolute error": lambda: boosted(loss="absolute_error"),
    "boosting from zero": lambda: boosted(table.THREE, init="zero"),
    "boosting stopped early": lambda: boosted(n_estimators=50, n_iter_no_change=2),
    "boosting on samples": lambda: boosted(subsample=0.5, max_features=2),
    "ridge": lambda: fitted(linear_model.Ridge(), rows=table.FILLED),
    "ridge of a column": lambda: fitted(linear_model.Ridge(), table.TARGET[:, None], table.FILLED),
    "lasso": lambda: fitted(linear_model.Lasso(0.01), rows=table.FILLED),
    "huber": lambda: fitted(linear_model.HuberRegressor(), rows=table.FILLED),
    "logistic": lambda: fitted(linear_model.LogisticRegression(), table.IS_HIGH, table.FILLED),
    "logistic without intercept": lambda: fitted(
        linear_model.LogisticRegression(fit_intercept=False), table.IS_HIGH, table.FILLED
    ),
    "softmax": lambda: fitted(linear_model.LogisticRegression(), table.THREE, table.FILLED),
    "logistic by descent": lambda: fitted(
        linear_model.SGDClassifier(loss="log_loss", random_state=0), table.IS_HIGH, table.FILLED
    ),
    "poisson with a log link": lambda: fitted(
        linear_model.PoissonRegressor(), table.POSITIVE, table.FILLED
    ),
    "gamma with a log link": lambda: fitted(
        linear_model.GammaRegressor(), table.POSITIVE, table.FILLED
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


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (
            ensemble.GradientBoostingClassifier(init=linear_model.LogisticRegression(), **BOOSTED),
            "init estimator LogisticRegression makes the start depend on the row",
        ),
        (
            ensemble.GradientBoostingClassifier(loss="exponential", **BOOSTED),
            "loss='exponential' has no exact explainer",
        ),
        (ensemble.AdaBoostClassifier(n_estimators=3), "AdaBoostClassifier has no exact explainer"),
        (linear_model.SGDClassifier(loss="modified_huber"), "SGDClassifier has no exact"),
    ],
    ids=["init", "exponential", "AdaBoost", "modified_huber"],
)
def test_kind_without_an_explainer_is_served_and_skipped_by_name(
    estimator: Any, reason: str
) -> None:
    estimator.fit(table.FILLED, table.IS_HIGH)
    native = load_model(artifact_of_model(estimator))
    rows = table.FILLED[:20]
    np.testing.assert_allclose(
        native.predict(rows).scores, estimator.predict_proba(rows), rtol=1e-12
    )
    with pytest.raises(UnsupportedModelError, match=reason):
        native.form()
