import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catboost import CatBoost, CatBoostClassifier, CatBoostRegressor
from misreadings import (
    Misreading,
    no_base,
    other_cast,
    other_missing_direction,
    strict_comparison,
    swapped_sides,
)
from plain_trees import edges_of, traverse

from explainers.base import (
    Background,
    FloatArray,
    IdentityDerivation,
    MalformedModelError,
    Naming,
    UnsupportedModelError,
)
from explainers.choose import build_explainer
from explainers.exact import interventional_values
from explainers.tree.catboost import parse_catboost
from explainers.tree.ensemble import TreeEnsemble

Export = Callable[[CatBoost], dict[str, Any]]
ROWS = 2_000
COMMON = {
    "iterations": 12,
    "depth": 4,
    "random_seed": 0,
    "thread_count": 1,
    "verbose": False,
    "allow_writing_files": False,
}


def regressor(**options: Any) -> CatBoostRegressor:
    return CatBoostRegressor(**COMMON | options)


def classifier(**options: Any) -> CatBoostClassifier:
    return CatBoostClassifier(**COMMON | options)


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def exported(model: CatBoost) -> dict[str, Any]:
        path = tmp_path / "model.json"
        model.save_model(str(path), format="json")
        return json.loads(path.read_bytes())

    return exported


def raw_values(model: CatBoost, rows: FloatArray) -> FloatArray:
    values = model.predict(rows, prediction_type="RawFormulaVal", thread_count=1)
    return np.asarray(values).reshape(len(rows), -1)


def in_the_librarys_order(ensemble: TreeEnsemble, rows: FloatArray) -> FloatArray:
    """The library adds the bias after all trees."""
    return traverse(replace(ensemble, base=np.zeros_like(ensemble.base)), rows) + ensemble.base


def assert_same_decisions(export: Export, model: CatBoost, X: FloatArray) -> TreeEnsemble:
    ensemble = parse_catboost(export(model))
    rows = edges_of(ensemble, X)
    expected = raw_values(model, rows)
    np.testing.assert_array_equal(in_the_librarys_order(ensemble, rows), expected)
    np.testing.assert_allclose(traverse(ensemble, rows), expected, rtol=1e-13, atol=1e-13)
    return ensemble


@pytest.fixture(scope="module")
def numbers() -> FloatArray:
    X = np.random.default_rng(0).normal(size=(500, 4))
    X[:, 1] = np.round(X[:, 1], 1)
    X[:, 2] *= 1e-3
    return X


@pytest.fixture(scope="module")
def gappy(numbers: FloatArray) -> FloatArray:
    X = numbers.copy()
    X[np.random.default_rng(1).random(X.shape) < 0.15] = np.nan
    return X


@pytest.fixture(scope="module")
def target(numbers: FloatArray) -> FloatArray:
    return numbers[:, 0] * numbers[:, 1] + 300 * numbers[:, 2] + numbers[:, 3]


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
@pytest.mark.parametrize("treatment", ["Min", "Max"])
def test_every_policy_and_missing_direction_is_read_bit_by_bit(
    export: Export, gappy: FloatArray, target: FloatArray, policy: str, treatment: str
) -> None:
    model = regressor(grow_policy=policy, nan_mode=treatment).fit(gappy, target)
    ensemble = assert_same_decisions(export, model, gappy)
    inner = ensemble.left >= 0
    assert (ensemble.missing_left[inner] == (treatment == "Min")).all()


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
def test_several_classes_have_leaves_of_several_values(
    export: Export, gappy: FloatArray, target: FloatArray, policy: str
) -> None:
    labels = np.digitize(target, [-0.5, 0.5])
    ensemble = assert_same_decisions(
        export, classifier(grow_policy=policy).fit(gappy, labels), gappy
    )
    assert (ensemble.n_outputs, ensemble.leaf_values.shape[1]) == (3, 3)


def test_two_classes_have_one_output(
    export: Export, numbers: FloatArray, target: FloatArray
) -> None:
    model = classifier().fit(numbers, target > 0)
    assert assert_same_decisions(export, model, numbers).n_outputs == 1


@pytest.mark.parametrize(
    "loss", ["Poisson", "MAE", "Quantile:alpha=0.2", "Tweedie:variance_power=1.5"]
)
def test_every_loss_is_in_the_leaves(
    export: Export, gappy: FloatArray, target: FloatArray, loss: str
) -> None:
    assert_same_decisions(export, regressor(loss_function=loss).fit(gappy, np.abs(target)), gappy)


def test_missing_values_unknown_in_training_are_read_as_the_library_does(
    export: Export, numbers: FloatArray, target: FloatArray
) -> None:
    assert_same_decisions(export, regressor().fit(numbers, target), numbers)


def test_scale_and_bias_are_part_of_the_outputs(
    export: Export, gappy: FloatArray, target: FloatArray
) -> None:
    model = regressor().fit(gappy, target)
    model.set_scale_and_bias(0.3, 7.0)
    np.testing.assert_allclose(
        traverse(parse_catboost(export(model)), gappy), raw_values(model, gappy), rtol=1e-13
    )


def test_trees_of_one_leaf_are_read(export: Export) -> None:
    X, y = np.arange(60.0).reshape(30, 2), np.repeat([1.0, 4.0], 15)
    for policy in ("SymmetricTree", "Depthwise"):
        model = regressor(iterations=3, grow_policy=policy, min_data_in_leaf=30).fit(X, y)
        np.testing.assert_allclose(
            traverse(parse_catboost(export(model)), X), raw_values(model, X), rtol=1e-14
        )


@pytest.mark.parametrize(
    "breakage", [strict_comparison, other_cast, other_missing_direction, no_base, swapped_sides]
)
@pytest.mark.parametrize("policy", ["SymmetricTree", "Lossguide"])
def test_edge_rows_tell_a_misreading(
    export: Export, gappy: FloatArray, target: FloatArray, policy: str, breakage: Misreading
) -> None:
    model = regressor(grow_policy=policy).fit(gappy, target)
    ensemble = parse_catboost(export(model))
    rows = edges_of(ensemble, gappy)
    broken = in_the_librarys_order(breakage(ensemble), rows)
    assert np.any(broken != raw_values(model, rows), axis=1).sum() >= 5


def test_splits_in_the_other_order_are_a_misreading(
    export: Export, gappy: FloatArray, target: FloatArray
) -> None:
    model = regressor().fit(gappy, target)
    document = export(model)
    for tree in document["oblivious_trees"]:
        tree["splits"].reverse()
    assert not np.allclose(traverse(parse_catboost(document), gappy), raw_values(model, gappy))


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise"])
@pytest.mark.parametrize("classes", [1, 3])
def test_values_equal_brute_force_through_the_library(
    export: Export, gappy: FloatArray, target: FloatArray, policy: str, classes: int
) -> None:
    kind = regressor if classes == 1 else classifier
    labels = target + 5 if classes == 1 else np.digitize(target, [-0.5, 0.5])
    model = kind(grow_policy=policy).fit(gappy, labels)
    names = tuple("abcd")
    explainer = build_explainer(
        parse_catboost(export(model)),
        Background.of(gappy[:40]),
        IdentityDerivation.over(4),
        naming=Naming(names, tuple(str(k) for k in range(classes)), "raw"),
        tolerance=1e-9,
        engine="walk",
    )
    for row in gappy[40:60]:
        expected = interventional_values(lambda X: raw_values(model, X), row, gappy[:40])
        found = explainer.explain(row[None, :])
        np.testing.assert_allclose(found.values[0], expected, rtol=1e-10, atol=1e-12)
        mean = raw_values(model, gappy[:40]).mean(axis=0)
        np.testing.assert_allclose(found.base_values[0], mean, rtol=1e-12)


@pytest.mark.parametrize(("levels", "kind"), [(2, "OneHotFeature"), (9, "OnlineCtr")])
def test_splits_by_category_are_refused_by_name(
    export: Export, numbers: FloatArray, target: FloatArray, levels: int, kind: str
) -> None:
    codes = np.random.default_rng(3).integers(levels, size=len(numbers))
    rows = np.column_stack([numbers.astype(object), codes.astype(str)])
    model = classifier(cat_features=[4]).fit(rows, target + codes % 2 > 0.5)
    with pytest.raises(UnsupportedModelError, match=kind):
        parse_catboost(export(model))


@pytest.fixture
def document(export: Export, gappy: FloatArray, target: FloatArray) -> dict[str, Any]:
    return export(regressor(iterations=2).fit(gappy, target))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("leaf_values", [1.0, 2.0, 3.0]),
        ("leaf_values", ["x"] * 16),
        ("leaf_values", [float("nan")] * 16),
        ("splits", [{"split_type": "FloatFeature"}] * 4),
        ("splits", [{"split_type": "FloatFeature", "float_feature_index": 9, "border": 0}] * 4),
        ("splits", 5),
    ],
)
def test_trees_that_mean_nothing_are_refused(
    document: dict[str, Any], field: str, value: object
) -> None:
    document["oblivious_trees"][1][field] = value
    with pytest.raises(MalformedModelError):
        parse_catboost(document)


@pytest.mark.parametrize("absent", ["scale_and_bias", "features_info", "oblivious_trees"])
def test_a_document_of_something_else_is_refused(document: dict[str, Any], absent: str) -> None:
    del document[absent]
    with pytest.raises(MalformedModelError, match=r"no.* CatBoost model document"):
        parse_catboost(document)
