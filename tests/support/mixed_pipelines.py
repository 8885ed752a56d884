"""A mixed table, pipelines over it, and what the library itself answers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from numpy.typing import NDArray
from sklearn import ensemble, linear_model, tree
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from stored_models import Stored, stored

from explainers.base import FloatArray, RawColumns
from service.models.formats import artifact_of_model, load_model
from service.models.sklearn import SklearnModel, dump_sklearn, load_sklearn
from service.models.sklearn_file import TRUSTED

N_ROWS = 1000
FOREST = ensemble.RandomForestClassifier(15, max_depth=6, random_state=0)
BOOSTING = ensemble.GradientBoostingClassifier(n_estimators=15, random_state=0)
LOGISTIC = linear_model.LogisticRegression(max_iter=3000)


def mixed_frame() -> pd.DataFrame:
    """1,000 rows of the breast cancer set, with category, missing and repeated columns added."""
    rng = np.random.default_rng(5)
    X, _ = load_breast_cancer(return_X_y=True)
    rows = X[rng.integers(0, len(X), N_ROWS)]
    frame = pd.DataFrame(rows[:, :3], columns=["radius", "texture", "perimeter"])
    frame["clinic"] = rng.choice(["north", "south", "west"], N_ROWS)
    frame["grade"] = rng.integers(1, 5, N_ROWS)
    frame["smokes"] = rng.choice(["no", "yes", "unknown"], N_ROWS)
    frame.loc[rng.random(N_ROWS) < 0.1, "radius"] = np.nan
    frame.loc[rng.random(N_ROWS) < 0.1, "smokes"] = np.nan
    return frame


def labels(frame: pd.DataFrame, *, n_classes: int = 2) -> NDArray[np.int64]:
    score = frame["texture"] + 3 * (frame["clinic"] == "west") + frame["grade"]
    return np.asarray(pd.qcut(score, n_classes, labels=False), dtype=np.int64)


def preprocessing(*, sparse: bool = False) -> ColumnTransformer:
    number = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    known = OrdinalEncoder(categories=[["no", "unknown", "yes"]])
    return ColumnTransformer(
        [
            ("number", number, ["radius", "texture", "perimeter"]),
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=sparse), ["clinic"]),
            ("ordinal", make_pipeline(SimpleImputer(strategy="most_frequent"), known), ["smokes"]),
        ],
        remainder="passthrough",
        sparse_threshold=float(sparse),
    )


def unusual_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with unseen clinics, and missing values where training had some."""
    rng = np.random.default_rng(6)
    frame = frame.copy()
    frame.loc[rng.random(N_ROWS) < 0.1, "clinic"] = "elsewhere"
    for column in ("radius", "texture", "smokes"):
        frame.loc[rng.random(N_ROWS) < 0.1, column] = np.nan
    return frame


def coded(frame: pd.DataFrame, columns: RawColumns) -> FloatArray:
    rows = np.empty((len(frame), len(columns)))
    for index, (name, levels) in enumerate(zip(columns.names, columns.levels, strict=True)):
        values = frame[name].tolist()
        if levels is None:
            rows[:, index] = values
        else:
            code = {level: k for k, level in enumerate(levels)}
            rows[:, index] = [np.nan if v != v else code.get(v, -1) for v in values]  # noqa: PLR0124
    return rows


def loaded(model: Any, **options: Any) -> SklearnModel:
    return load_sklearn(dump_sklearn(model)[0], **options)


def library_scores(model: Any, rows: Any) -> FloatArray:
    """What the library answers with the stored model, a row at a time.

    Stored and copied, because the memory layout of coefficients and rows sets the last bits of
    linear models.
    """
    model = skops.io.loads(dump_sklearn(model)[0], trusted=list(TRUSTED))
    predict = model.predict_proba if hasattr(model, "predict_proba") else model.predict
    answers = [predict(rows[index : index + 1].copy()) for index in range(len(rows))]
    return np.concatenate(answers).astype(np.float64).reshape(len(rows), -1)


FINALS = [
    FOREST,
    tree.DecisionTreeClassifier(max_depth=5, random_state=0),
    ensemble.ExtraTreesClassifier(9, random_state=0),
    BOOSTING,
    LOGISTIC,
    linear_model.SGDClassifier(loss="log_loss", random_state=0),
    linear_model.Ridge(),
    linear_model.PoissonRegressor(),
    ensemble.RandomForestRegressor(9, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=9, random_state=0),
]


def uncoded(rows: FloatArray, columns: RawColumns) -> pd.DataFrame:
    """Coded rows as the frame they come from; -1 is a level nobody knows."""
    frame = {}
    for index, (name, levels) in enumerate(zip(columns.names, columns.levels, strict=True)):
        cells = rows[:, index]
        if levels is not None:
            known = np.array([*levels, "nobody's", np.nan], dtype=object)
            codes = np.where(cells < 0, len(levels), cells)
            cells = known[np.where(np.isnan(codes), len(levels) + 1, codes).astype(np.int64)]
        frame[name] = pd.Series(cells)
    return pd.DataFrame(frame)


def stored_pipeline(
    model: Any, frame: pd.DataFrame, outputs: Callable[[Any, pd.DataFrame], FloatArray]
) -> Stored:
    """A fitted pipeline as it is stored; its library reads frames."""
    columns = load_model(artifact_of_model(model)).columns.raw
    library = partial(_outputs_of_coded, model, columns, outputs)
    return stored(model, coded(frame, columns), library)


def _outputs_of_coded(
    model: Any, columns: RawColumns, outputs: Any, rows: FloatArray
) -> FloatArray:
    return outputs(model, uncoded(rows, columns))
