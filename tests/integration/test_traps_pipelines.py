"""Models behind preprocessing: values of raw columns are brute force through the whole pipeline."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mixed_pipelines import labels, mixed_frame, preprocessing, stored_pipeline
from sklearn import ensemble, linear_model
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeRegressor
from stored_models import Stored, assert_exact

from explainers.base import FloatArray
from explainers.exact import interventional_values
from service.models.errors import ModelLoadError
from service.models.formats import artifact_of_model, load_model

FOREST = {"n_estimators": 9, "max_depth": 5, "random_state": 0}
ROWS = 500

Maker = Callable[[], Stored]
Outputs = Callable[[Any, pd.DataFrame], FloatArray]


def decision(model: Any, frame: pd.DataFrame) -> FloatArray:
    return model.decision_function(frame)


def prediction(model: Any, frame: pd.DataFrame) -> FloatArray:
    return model.predict(frame)


def shares(model: Any, frame: pd.DataFrame) -> FloatArray:
    probabilities = model.predict_proba(frame)
    return probabilities[:, 1:] if probabilities.shape[1] == 2 else probabilities


def margin(model: Any, frame: pd.DataFrame) -> FloatArray:
    return model[-1].predict(model[:-1].transform(frame), output_margin=True)


def raw_score(model: Any, frame: pd.DataFrame) -> FloatArray:
    return model[-1].predict(model[:-1].transform(frame), raw_score=True)


def piped(
    final: Any,
    outputs: Outputs,
    *,
    classes: int = 0,
    sparse: bool = False,
    steps: Any = None,
    **fit: Any,
) -> Stored:
    """Of 0 classes: a regression. fit: what the last step is fitted with."""
    frame = mixed_frame().iloc[:ROWS]
    by_clinic = 3 * (frame["clinic"] == "west") + frame["grade"]
    y = labels(frame, n_classes=classes) if classes else frame["texture"] + by_clinic
    fit = {f"model__{name}": value for name, value in fit.items()}
    steps = preprocessing(sparse=sparse) if steps is None else steps
    model = Pipeline([("prepare", steps), ("model", final)]).fit(frame, y, **fit)
    return stored_pipeline(model, frame, outputs)


def every_kind_of_step() -> ColumnTransformer:
    common = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.3)
    bins = KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf")
    ranks = make_pipeline(SimpleImputer(), QuantileTransformer(n_quantiles=20))
    return ColumnTransformer(
        [
            ("ranks", ranks, ["radius"]),
            ("power", make_pipeline(SimpleImputer(), PowerTransformer()), ["texture"]),
            ("bins", bins, ["perimeter"]),
            ("powers", PolynomialFeatures(3), ["grade"]),
            ("means", TargetEncoder(cv=2), ["clinic"]),
            ("common", make_pipeline(SimpleImputer(strategy="most_frequent"), common), ["smokes"]),
            ("itself", "passthrough", ["texture"]),
        ]
    )


def codes_for_the_trees() -> ColumnTransformer:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    return ColumnTransformer([("codes", encoder, ["smokes", "clinic"])], remainder="passthrough")


def xgboost(kind: str, **options: Any) -> Any:
    import xgboost

    return getattr(xgboost, kind)(n_estimators=12, max_depth=4, n_jobs=1, **options)


def lightgbm(kind: str, **options: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, kind)(n_estimators=12, num_leaves=9, n_jobs=1, verbose=-1, **options)


PIPELINES: dict[str, Maker] = {
    "logistic": lambda: piped(linear_model.LogisticRegression(max_iter=3000), decision, classes=2),
    "sparse softmax": lambda: piped(
        linear_model.LogisticRegression(max_iter=3000), decision, classes=3, sparse=True
    ),
    "ridge": lambda: piped(linear_model.Ridge(), prediction),
    "forest": lambda: piped(ensemble.RandomForestClassifier(**FOREST), shares, classes=2),
    "sparse forest of three classes": lambda: piped(
        ensemble.RandomForestClassifier(**FOREST), shares, classes=3, sparse=True
    ),
    "gradient boosting": lambda: piped(
        ensemble.GradientBoostingRegressor(n_estimators=9), prediction
    ),
    "histogram boosting": lambda: piped(
        ensemble.HistGradientBoostingClassifier(max_iter=9), decision, classes=2
    ),
    "histogram boosting by codes": lambda: piped(
        ensemble.HistGradientBoostingClassifier(max_iter=9, categorical_features=[0, 1]),
        decision,
        classes=2,
        steps=codes_for_the_trees(),
    ),
    "XGBoost": lambda: piped(xgboost("XGBClassifier"), margin, classes=2),
    "XGBoost reads absent as missing": lambda: piped(
        xgboost("XGBClassifier"), margin, classes=3, sparse=True
    ),
    "XGBoost dart reads absent as missing": lambda: piped(
        xgboost("XGBRegressor", booster="dart", rate_drop=0.4), margin, sparse=True
    ),
    "LightGBM": lambda: piped(lightgbm("LGBMClassifier"), raw_score, classes=2),
    "LightGBM reads absent as 0": lambda: piped(
        lightgbm("LGBMClassifier"), raw_score, classes=3, sparse=True
    ),
    "LightGBM reads absent as 0, and 0 as missing": lambda: piped(
        lightgbm("LGBMRegressor", zero_as_missing=True), raw_score, sparse=True
    ),
    "XGBoost by codes": lambda: piped(
        xgboost(
            "XGBRegressor",
            enable_categorical=True,
            feature_types=["c", "c", "q", "q", "q", "q"],
            max_cat_to_onehot=1,
        ),
        margin,
        steps=codes_for_the_trees(),
    ),
    "LightGBM by codes": lambda: piped(
        lightgbm("LGBMRegressor", min_data_per_group=5),
        raw_score,
        steps=codes_for_the_trees(),
        categorical_feature=[0, 1],
    ),
    "frames between the steps": lambda: piped(
        ensemble.RandomForestClassifier(**FOREST),
        shares,
        classes=2,
        steps=preprocessing().set_output(transform="pandas"),
    ),
    "every kind of step before ridge": lambda: piped(
        linear_model.Ridge(), prediction, steps=every_kind_of_step()
    ),
    "every kind of step before a forest": lambda: piped(
        ensemble.RandomForestRegressor(**FOREST), prediction, steps=every_kind_of_step()
    ),
}


@pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES)
def test_values_of_raw_columns_are_brute_force_through_the_pipeline(make: Maker) -> None:
    assert_exact(make())


def test_a_one_hot_column_is_one_player_not_the_sum_of_its_dummies() -> None:
    """The dummies of a column move together; played apart, they are worth something else."""
    frame = mixed_frame().iloc[:ROWS][["clinic", "grade"]]
    sign = frame["clinic"].map({"north": -1, "south": 1, "west": 3})
    steps = ColumnTransformer([("clinic", OneHotEncoder(), ["clinic"])], remainder="passthrough")
    model = make_pipeline(steps, DecisionTreeRegressor(max_depth=6, random_state=0))
    model.fit(frame, sign * frame["grade"])
    piped_tree = stored_pipeline(model, frame, prediction)
    assert_exact(piped_tree)
    truth, derivation = piped_tree.truth, piped_tree.native.form().derivation
    derived, background = derivation(truth.rows), derivation(truth.background)
    tree = model[-1].predict
    apart = [interventional_values(lambda X: tree(X)[:, None], x, background) for x in derived]
    summed = np.zeros_like(truth.values)
    np.add.at(summed, (slice(None), derivation.players), np.stack(apart))
    assert np.abs(summed - truth.values).max() > 0.02 * np.abs(truth.values).max()


@pytest.mark.parametrize("name", ["XGBoost by codes", "LightGBM by codes"])
def test_codes_an_encoder_makes_are_split_by_sets(name: str) -> None:
    assert PIPELINES[name]().trees.is_category.any()


@pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_pandas_categories_that_reach_the_last_step_are_refused(
    library: str, *, ordered: bool
) -> None:
    """It would code a request's numbers in another way than the frames of its training."""
    frame = mixed_frame().iloc[:ROWS][["radius", "grade"]]
    levels = pd.CategoricalDtype([4, 2, 1, 3], ordered=ordered)
    frame = frame.astype({"grade": levels})
    steps = ColumnTransformer([("radius", SimpleImputer(), ["radius"])], remainder="passthrough")
    final = (
        xgboost("XGBRegressor", enable_categorical=True)
        if library == "xgboost"
        else lightgbm("LGBMRegressor")
    )
    model = make_pipeline(steps.set_output(transform="pandas"), final)
    model.fit(frame, frame["grade"].astype(float) + frame["radius"].fillna(0))
    with pytest.raises(ModelLoadError, match="trained on pandas categories"):
        load_model(artifact_of_model(model))
