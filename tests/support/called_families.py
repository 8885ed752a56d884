"""Families without an exact form: their models are only called."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from exports import Exported
from families import Family, catboost, fitted, german, narrow, piped
from tables import breast_cancer, mixed, wine


def _mixed_catboost() -> Family:
    X, y = mixed()
    X["site"] = X["site"].fillna("none")
    categories = {name: tuple(sorted(X[name].unique())) for name in ("site", "grade")}
    flipped = y ^ (X["grade"] == "high")
    options = {"categories": categories}
    return catboost(X, flipped, grown={"cat_features": list(categories)}, options=options)


def _mlp() -> Family:
    from sklearn.neural_network import MLPClassifier

    final = MLPClassifier((4,), max_iter=200, early_stopping=True, random_state=0)
    return piped(final, *mixed(), one_by_one=True)


def _pca() -> Family:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = narrow(breast_cancer())
    model = make_pipeline(StandardScaler(), PCA(3), LogisticRegression())
    return fitted(model, X, y)


def _wide_svm() -> Family:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    X, y = breast_cancer()
    model = CalibratedClassifierCV(make_pipeline(StandardScaler(), SVC()), cv=2)
    return fitted(model, X.iloc[:300, :14], y.iloc[:300], one_by_one=True)


def _exported(model: Any, X: pd.DataFrame, y: pd.Series, **facts: Any) -> Family:
    """The fitted model's ONNX graph, with float32 numbers, one input per column."""
    from skl2onnx import to_onnx

    graph = to_onnx(model.fit(X, y), X[:1], options={"zipmap": False})
    library = Exported(graph.SerializeToString())
    return Family(graph, X, y, one_by_one=True, library=library, **facts)


def _exportable(X: pd.DataFrame) -> Any:
    """Preprocessing whose numbers ONNX has operators for."""
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = list(X.select_dtypes("number").columns)
    texts = [name for name in X if name not in numbers]
    return make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(), texts))


def _exported_forest() -> Family:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    X, y = narrow(wine())
    model = RandomForestClassifier(15, max_depth=6, random_state=0)
    return _exported(make_pipeline(_exportable(X), model), X.astype(np.float32), y)


def _few_german() -> tuple[pd.DataFrame, pd.Series]:
    X, y = german()
    return X.iloc[:300], y.iloc[:300]


def _german_mlp() -> Family:
    from sklearn.neural_network import MLPClassifier

    final = MLPClassifier((8,), solver="lbfgs", alpha=1.0, max_iter=3000, random_state=0)
    return piped(final, *_few_german(), one_by_one=True)


def _german_svm() -> Family:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    return piped(CalibratedClassifierCV(SVC(), cv=2), *_few_german(), one_by_one=True)


def _german_stacking() -> Family:
    from sklearn.ensemble import RandomForestClassifier, StackingClassifier
    from sklearn.linear_model import LogisticRegression

    parts = [
        ("forest", RandomForestClassifier(10, max_depth=5, random_state=0)),
        ("logistic", LogisticRegression(max_iter=5000)),
    ]
    return piped(StackingClassifier(parts, cv=2), *_few_german(), one_by_one=True)


def _german_catboost() -> Family:
    X, y = german()
    texts = [name for name in X if not pd.api.types.is_numeric_dtype(X[name])]
    categories = {name: tuple(sorted(X[name].unique())) for name in texts}
    options = {"categories": categories, "classes": ("good", "bad")}
    grown = {"cat_features": texts, "class_names": ["good", "bad"]}
    return catboost(X, y, grown=grown, options=options)


def _german_export() -> Family:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    X, y = german()
    texts = [name for name in X if not pd.api.types.is_numeric_dtype(X[name])]
    categories = {name: tuple(sorted(X[name].unique())) for name in texts}
    model = make_pipeline(_exportable(X), LogisticRegression(max_iter=5000))
    return _exported(model, X, y, options={"categories": categories})


CALLED: Mapping[str, Callable[[], Family]] = {
    "mlp": _mlp,
    "pca": _pca,
    "mixed_catboost": _mixed_catboost,
    "wide_svm": _wide_svm,
    "exported_forest": _exported_forest,
}
"""By name, on tables that come with scikit-learn."""

LARGER_CALLED: Mapping[str, Callable[[], Family]] = {
    "german_mlp": _german_mlp,
    "german_svm": _german_svm,
    "german_stacking": _german_stacking,
    "german_catboost": _german_catboost,
    "german_export": _german_export,
}
