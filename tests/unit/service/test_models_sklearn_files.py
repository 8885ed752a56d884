import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from mixed_pipelines import loaded
from numpy.typing import NDArray
from scipy import sparse
from sklearn import ensemble, linear_model, tree
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC

from explainers.base import RawColumns
from service.models.errors import ModelLoadError
from service.models.sklearn import dump_sklearn, load_sklearn

FOREST = ensemble.RandomForestClassifier(9, max_depth=6, random_state=0)
LOGISTIC = linear_model.LogisticRegression(max_iter=9000)


def test_given_names_and_categories_serve_an_unnamed_array() -> None:
    X, y = load_iris(return_X_y=True)
    X[:, 3] = X[:, 3] > 1
    adapter = loaded(FOREST.fit(X, y), names=tuple("abcd"), categories={"d": ("thin", "wide")})
    assert adapter.columns.raw == RawColumns(tuple("abcd"), (None, None, None, ("thin", "wide")))
    np.testing.assert_array_equal(adapter.predict(X).scores, FOREST.predict_proba(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("a", "b")}, "2 column names"),
        ({"names": ("a", "a", "b", "c")}, "unique"),
        ({"categories": {"colour": ("red",)}}, "colour"),
    ],
)
def test_names_and_categories_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str
) -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ModelLoadError, match=message):
        loaded(LOGISTIC.fit(X, y), **options)


def test_a_pipeline_that_encodes_must_be_the_outermost_estimator() -> None:
    """The steps of an inner one are not ours to run, and its text not to be fed as codes."""
    frame = pd.DataFrame({"clinic": ["north", "south"] * 15, "age": range(30)})
    inner = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LOGISTIC)
    model = CalibratedClassifierCV(inner, cv=2).fit(frame, [0, 1, 1] * 10)
    with pytest.raises(ModelLoadError, match=r"'clinic'.* must be the outermost"):
        loaded(model, categories={"clinic": ("north", "south")})
    numbers = frame.assign(clinic=frame["clinic"] == "north").astype(float)
    coded = CalibratedClassifierCV(LOGISTIC, cv=2).fit(numbers, [0, 1, 1] * 10)
    loaded(coded, categories={"clinic": ("south", "north")})


def test_categories_that_contradict_the_encoder_are_refused() -> None:
    frame = pd.DataFrame({"clinic": ["north", "south", "west"] * 9})
    model = make_pipeline(OneHotEncoder(), LOGISTIC).fit(frame, [0, 1, 1] * 9)
    with pytest.raises(ModelLoadError, match="clinic"):
        loaded(model, categories={"clinic": ("south", "north", "west")})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LinearSVC(), "LinearSVC has no predict_proba"),
        (ensemble.IsolationForest(n_estimators=2), "IsolationForest is neither"),
        (linear_model.LogisticRegression(), "not a fitted estimator"),
        (StandardScaler(), "not a fitted estimator"),
    ],
    ids=["no probabilities", "outliers", "not fitted", "transformer"],
)
def test_models_that_cannot_be_served_are_refused_by_name(model: Any, message: str) -> None:
    X, y = load_iris(return_X_y=True)
    fitted = model if message.startswith("not a") else model.fit(X, y)
    with pytest.raises(ModelLoadError, match=message):
        loaded(fitted)


@pytest.mark.parametrize("estimator", [linear_model.Ridge(), ensemble.RandomForestClassifier(2)])
def test_several_targets_are_refused(estimator: Any) -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ModelLoadError, match="several targets"):
        loaded(estimator.fit(X, np.column_stack([y, y])))


def test_a_single_class_is_refused() -> None:
    X, _ = load_iris(return_X_y=True)
    with pytest.raises(ModelLoadError, match="single class"):
        loaded(tree.DecisionTreeClassifier().fit(X, np.zeros(len(X))))


def test_pickle_is_refused_with_the_way_out() -> None:
    with pytest.raises(ModelLoadError, match=r"skops\.io\.dump"):
        load_sklearn(pickle.dumps(linear_model.Ridge()))


@pytest.mark.parametrize("data", [b"PK\x03\x04 cut off", b"PK", b""])
def test_broken_files_are_refused(data: bytes) -> None:
    with pytest.raises(ModelLoadError, match="skops file"):
        load_sklearn(data)


def test_untrusted_types_are_refused_by_name() -> None:
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(FunctionTransformer(np.nan_to_num), linear_model.Ridge()).fit(X, y)
    with pytest.raises(ModelLoadError, match=r"not trusted: .*nan_to_num"):
        load_sklearn(skops.io.dumps(model))


def test_types_that_are_trusted_nowhere_are_refused_by_name() -> None:
    X, y = load_iris(return_X_y=True)
    data, _ = dump_sklearn(make_pipeline(SplineTransformer(), LOGISTIC).fit(X, y))
    with pytest.raises(ModelLoadError, match="BSpline"):
        load_sklearn(data)


def test_what_skops_cannot_store_is_refused() -> None:
    X, y = load_iris(return_X_y=True)
    model = linear_model.Ridge().fit(X, y)
    model.callback_ = (row for row in X)
    with pytest.raises(ModelLoadError, match="skops cannot store"):
        dump_sklearn(model)


def redirected(data: bytes, change: Any) -> bytes:
    """The file with one of its trees' node arrays changed."""
    source = zipfile.ZipFile(io.BytesIO(data))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".npy"):
                array = np.load(io.BytesIO(content))
                if array.dtype.names and len(array) > 1:
                    change(array)
                    buffer = io.BytesIO()
                    np.save(buffer, array)
                    content = buffer.getvalue()
            copy.writestr(name, content)
    return target.getvalue()


@pytest.mark.parametrize(
    ("estimator", "child", "column"),
    [
        (tree.DecisionTreeClassifier(max_depth=3), "left_child", "feature"),
        (ensemble.AdaBoostClassifier(n_estimators=2), "left_child", "feature"),
        (ensemble.HistGradientBoostingClassifier(max_iter=2), "left", "feature_idx"),
    ],
    ids=["tree", "nested", "histogram"],
)
@pytest.mark.parametrize("attack", ["outside", "cycle", "column"])
def test_trees_that_lead_astray_are_refused(
    estimator: Any, child: str, column: str, attack: str
) -> None:
    def change(nodes: NDArray[Any]) -> None:
        if attack == "column":
            nodes[column][0] = 10_000
        else:
            nodes[child][0] = len(nodes) if attack == "outside" else 0

    X, y = load_iris(return_X_y=True)
    data, _ = dump_sklearn(estimator.fit(X, y))
    assert load_sklearn(redirected(data, lambda _: None)).n_classes == 3
    with pytest.raises(ModelLoadError, match="tree"):
        load_sklearn(redirected(data, change))


@pytest.mark.parametrize("place", ["alone", "forest", "boosting", "nested"])
def test_trees_over_more_columns_than_their_estimator_has_are_refused(place: str) -> None:
    X, y = load_iris(return_X_y=True)
    wide = tree.DecisionTreeClassifier(max_depth=2).fit(np.tile(X, 9), y)
    forest = ensemble.RandomForestClassifier(3, max_depth=2).fit(X, y)
    boosting = ensemble.GradientBoostingRegressor(n_estimators=2).fit(X, y)
    models: dict[str, Any] = {
        "alone": tree.DecisionTreeClassifier(max_depth=2).fit(X, y),
        "forest": forest,
        "boosting": boosting,
        "nested": ensemble.AdaBoostClassifier(forest, n_estimators=2).fit(X, y),
    }
    model = models[place]
    assert load_sklearn(dump_sklearn(model)[0])
    if place == "alone":
        model.tree_ = wide.tree_
    elif place == "boosting":
        boosting.estimators_[1, 0] = tree.DecisionTreeRegressor(max_depth=2).fit(np.tile(X, 9), y)
    else:
        (forest if place == "forest" else model.estimators_[0]).estimators_[1] = wide
    with pytest.raises(ModelLoadError, match="other columns than its estimator"):
        load_sklearn(dump_sklearn(model)[0])


def test_a_tree_that_refers_to_a_set_it_does_not_have_is_refused() -> None:
    def change(nodes: NDArray[Any]) -> None:
        nodes["is_categorical"][0], nodes["bitset_idx"][0] = 1, 99

    X, y = load_iris(return_X_y=True)
    data, _ = dump_sklearn(ensemble.HistGradientBoostingClassifier(max_iter=2).fit(X, y))
    with pytest.raises(ModelLoadError, match="category set"):
        load_sklearn(redirected(data, change))


def test_dump_gives_the_classes_beside_the_file() -> None:
    X, y = load_iris(return_X_y=True)
    data, classes = dump_sklearn(LOGISTIC.fit(X, np.array(["x", "y", "z"])[y]))
    assert classes == ("x", "y", "z")
    assert json.loads(zipfile.ZipFile(io.BytesIO(data)).read("schema.json"))
    assert dump_sklearn(linear_model.Ridge().fit(X, y))[1] is None


def test_search_trees_of_a_file_are_grown_again_from_its_points() -> None:
    X, y = load_iris(return_X_y=True)
    model = KNeighborsClassifier(algorithm="kd_tree").fit(X, y)
    data, _ = dump_sklearn(model)

    def change(nodes: NDArray[Any]) -> None:
        nodes["idx_end"] = 10**9

    adapter = load_sklearn(redirected(data, change))
    np.testing.assert_array_equal(adapter.predict(X).scores, model.predict_proba(X))


def beyond(model: Any) -> None:
    model._y = model._y + 7


def too_many(model: Any) -> None:
    model.n_neighbors = 10_000


def narrower(model: Any) -> None:
    model._fit_X = model._fit_X[:, :2].copy()


def own_metric(model: Any) -> None:
    model.effective_metric_ = "precomputed"


def longer(model: Any) -> None:
    model._n_support = model._n_support + 1000


def fewer_weights(model: Any) -> None:
    model._dual_coef_ = model._dual_coef_[:, :2].copy()


def no_offsets(model: Any) -> None:
    model._intercept_ = model._intercept_[:0]


def other_library(model: Any) -> None:
    model._impl = "epsilon_svr"


def by_position(model: Any) -> None:
    model.kernel = "precomputed"


@pytest.mark.parametrize(
    ("estimator", "attack"),
    [
        *((KNeighborsClassifier, attack) for attack in (beyond, too_many, narrower, own_metric)),
        *((SVC, attack) for attack in (longer, fewer_weights, no_offsets, other_library)),
        *((SVR, attack) for attack in (fewer_weights, no_offsets, by_position)),
    ],
)
@pytest.mark.parametrize("place", ["itself", "nested"])
def test_kernels_that_would_read_astray_are_refused(
    estimator: Any, attack: Any, place: str
) -> None:
    X, y = load_iris(return_X_y=True)
    model = estimator().fit(X, y)
    attack(model)
    if place == "nested":
        outer = ensemble.BaggingRegressor(estimator=linear_model.Ridge(), n_estimators=2).fit(X, y)
        outer.estimators_[0] = model
        model = outer
    with pytest.raises(ModelLoadError, match=r"kernel|neighbours|support vectors|metric"):
        load_sklearn(dump_sklearn(model)[0])


def test_sparse_matrices_that_point_outside_are_refused() -> None:
    X, y = load_iris(return_X_y=True)
    model = SVR().fit(sparse.csr_matrix(X), y)
    data, _ = dump_sklearn(model)
    assert load_sklearn(data).predict(X[:1]).scores.shape == (1, 1)
    model.support_vectors_.indices[0] = 10**6
    with pytest.raises(ModelLoadError, match="not complete"):
        load_sklearn(dump_sklearn(model)[0])


def test_thresholds_that_probabilities_do_not_show_are_refused() -> None:
    X, y = load_iris(return_X_y=True)
    model = FixedThresholdClassifier(LOGISTIC, threshold=0.9).fit(X, y == 1)
    with pytest.raises(ModelLoadError, match="estimator_"):
        loaded(model)
