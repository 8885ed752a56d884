"""Fitted preprocessing of every known kind over one small mixed table."""

from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from explainers.base import FloatArray, IntArray, RawColumns
from explainers.preprocess import Reach, decode_frame

COLUMNS = RawColumns(
    ("radius", "texture", "colour", "grade", "is_old"),
    (None, None, ("blue", "green", "red"), (1, 2, 3, 4), (False, True)),
)
NUMBERS = ["radius", "texture"]
TEXT = ["colour"]


def coded_rows() -> FloatArray:
    rng = np.random.default_rng(3)
    X, _ = load_breast_cancer(return_X_y=True)
    rows = np.column_stack(
        [X[:, :2], rng.integers(0, 3, len(X)), rng.integers(0, 4, len(X)), X[:, 2] > 90]
    )
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, 3:] = np.nan_to_num(rows[:, 3:])
    return rows


def targets() -> IntArray:
    return np.asarray(load_breast_cancer(return_X_y=True)[1], dtype=np.int64)


def fitted(steps: Any) -> Any:
    return steps.fit(decode_frame(coded_rows(), COLUMNS), targets())


def one_hot(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore", **options)


def scaled(scaler: Any) -> Any:
    return make_pipeline(SimpleImputer(add_indicator=True), scaler)


def imputed(encoder: Any) -> Any:
    return make_pipeline(SimpleImputer(strategy="most_frequent"), encoder)


ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
KNOWN_STEPS = {
    "impute, scale, one-hot, ordinal, passthrough": (
        ColumnTransformer(
            [
                ("numbers", scaled(StandardScaler()), NUMBERS),
                ("text", one_hot(), TEXT),
                ("ordinal", ORDINAL, ["grade"]),
            ],
            remainder="passthrough",
        ),
        [0, 1, 0, 1, 2, 2, 2, 2, 3, 4],
    ),
    "drop": (
        make_column_transformer(
            ("drop", ["grade"]),
            (StandardScaler(), []),
            (one_hot(drop="first"), ["is_old"]),
            (one_hot(), TEXT),
        ),
        [4, 2, 2, 2, 2],
    ),
    "dense one-hot, drop if binary": (
        make_column_transformer(
            (one_hot(drop="if_binary", sparse_output=False), ["is_old", "grade"])
        ),
        [4, 3, 3, 3, 3],
    ),
    "infrequent categories": (
        make_column_transformer(
            (OneHotEncoder(max_categories=2, handle_unknown="infrequent_if_exist"), ["grade"]),
            (imputed(one_hot(min_frequency=0.34)), TEXT),
        ),
        [3, 3, 2, 2],
    ),
    "bins": (
        make_column_transformer(
            (
                make_pipeline(
                    SimpleImputer(),
                    KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
                ),
                ["texture"],
            ),
            (
                KBinsDiscretizer(2, encode="ordinal", quantile_method="averaged_inverted_cdf"),
                ["grade"],
            ),
        ),
        [1, 1, 1, 3],
    ),
    "a union and a selector": (
        make_pipeline(
            make_column_transformer((SimpleImputer(), NUMBERS), ("passthrough", ["grade"])),
            "passthrough",
            make_union(MinMaxScaler(), RobustScaler(), "passthrough"),
            SelectKBest(k=5),
        ),
        None,
    ),
    "missing flags alone": (
        make_column_transformer(
            (MissingIndicator(), [*NUMBERS, "grade"]), (MaxAbsScaler(), ["grade"])
        ),
        [0, 1, 3],
    ),
    "target encoder": (
        make_column_transformer((TargetEncoder(cv=2), ["colour", "grade"])),
        [2, 3],
    ),
    "logarithm": (
        make_column_transformer((FunctionTransformer(np.log1p), NUMBERS)),
        [0, 1],
    ),
    "unknown kind over one column": (
        make_column_transformer(
            (make_pipeline(SimpleImputer(), PolynomialFeatures(3)), ["radius"]),
            (FunctionTransformer(), ["grade"]),
        ),
        [0, 0, 0, 0, 3],
    ),
    "an encoder behind an encoder": (
        make_column_transformer((imputed(make_pipeline(ORDINAL, OneHotEncoder())), TEXT)),
        [2, 2, 2],
    ),
    "half a union": (
        make_column_transformer(
            (make_union(MinMaxScaler(), "passthrough").set_params(minmaxscaler="drop"), ["grade"])
        ),
        [3],
    ),
    "variance": (
        make_column_transformer((make_pipeline(one_hot(), VarianceThreshold(0.2)), ["is_old"])),
        [4, 4],
    ),
}
REACH = Reach(missing=(True, True, True, False, False), unseen=(False, False, True, False, False))
