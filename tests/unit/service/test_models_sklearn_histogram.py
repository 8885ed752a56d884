import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from mixed_pipelines import loaded
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils.validation import check_array

from explainers.base import FloatArray, IdentityDerivation
from explainers.preprocess import UNSEEN_TEXT
from service.models.errors import ModelLoadError
from service.models.sklearn import dump_sklearn, load_sklearn

COMMON = {"max_iter": 8, "max_leaf_nodes": 9, "min_samples_leaf": 5, "random_state": 0}
ROWS = 600
CODED = {"colour": ("blue", "green", "red"), "rooms": (10, 20, 30, 40)}
COLOUR, ROOMS, MASS = 1, 3, 0


def classifier(**options: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(**COMMON | options)


def regressor(**options: Any) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(**COMMON | options)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "mass": rng.normal(size=ROWS),
            "colour": pd.Categorical(rng.choice(CODED["colour"], ROWS)),
            "width": rng.normal(size=ROWS),
            "rooms": pd.Categorical(rng.choice(CODED["rooms"], ROWS)),
        }
    )
    frame.loc[::7, "mass"] = np.nan
    frame.loc[::9, "colour"] = np.nan
    return frame


@pytest.fixture(scope="module")
def signal(frame: pd.DataFrame) -> FloatArray:
    rooms = frame["rooms"].astype(float).to_numpy()
    colour = frame["colour"].isin(["red"]).to_numpy()
    return frame["mass"].fillna(0.7).to_numpy() * (1 + colour) + 2.0 * np.isin(rooms, [10, 30])


@pytest.fixture(scope="module")
def coded(frame: pd.DataFrame) -> FloatArray:
    return np.column_stack(
        [
            frame[name].map({level: code for code, level in enumerate(CODED[name])})
            if name in CODED
            else frame[name]
            for name in frame
        ]
    ).astype(np.float64)


def test_categories_of_a_frame_come_from_its_own_encoder(
    frame: pd.DataFrame, signal: FloatArray, coded: FloatArray
) -> None:
    model = classifier().fit(frame, np.where(signal > 0.6, "yes", "no"))
    served = loaded(model)
    assert served.columns.raw.levels == (None, CODED["colour"], None, CODED["rooms"])
    assert served.columns.accepts_missing == (True,) * 4
    assert served.columns.unknown == ("refuse", "ignore", "refuse", "ignore")
    assert (served.task, served.classes, served.link) == ("binary", ("no", "yes"), "logit")
    result = served.predict(coded)
    np.testing.assert_array_equal(result.scores, model.predict_proba(frame))
    np.testing.assert_array_equal(result.outputs[:, 0], model.decision_function(frame))


def test_an_unseen_level_is_served_as_the_library_takes_it(
    frame: pd.DataFrame, signal: FloatArray, coded: FloatArray
) -> None:
    model = regressor().fit(frame, signal)
    strange, expected = coded.copy(), frame.astype({"colour": object, "rooms": float})
    strange[:, COLOUR], strange[:, ROOMS] = -1, -1
    expected["colour"], expected["rooms"] = UNSEEN_TEXT, 99.0
    served = loaded(model).predict(strange)
    np.testing.assert_array_equal(served.scores[:, 0], model.predict(expected))
    missing = coded.copy()
    missing[:, [COLOUR, ROOMS]] = np.nan
    np.testing.assert_array_equal(loaded(model).predict(missing).scores, served.scores)


def test_codes_under_a_mask_are_levels(signal: FloatArray, coded: FloatArray) -> None:
    model = regressor(categorical_features=[COLOUR, ROOMS]).fit(coded, signal)
    served = loaded(model, names=("mass", "colour", "width", "rooms"))
    assert served.columns.raw.levels == (None, (0, 1, 2), None, (0, 1, 2, 3))
    np.testing.assert_array_equal(served.predict(coded).scores[:, 0], model.predict(coded))


def test_text_under_a_mask_of_an_unnamed_array(
    frame: pd.DataFrame, signal: FloatArray, coded: FloatArray
) -> None:
    cells = frame.astype({"colour": object, "rooms": object}).to_numpy()
    model = regressor(categorical_features=[COLOUR, ROOMS]).fit(cells, signal)
    served = loaded(model)
    np.testing.assert_array_equal(served.predict(coded).scores[:, 0], model.predict(cells))


@pytest.mark.parametrize(
    ("loss", "space", "link"),
    [
        ("squared_error", "raw", "identity"),
        ("absolute_error", "raw", "identity"),
        ("quantile", "raw", "identity"),
        ("poisson", "log", "log"),
        ("gamma", "log", "log"),
    ],
)
def test_values_are_the_regressors_own(
    signal: FloatArray, coded: FloatArray, loss: str, space: str, link: str
) -> None:
    options = {"quantile": 0.4} if loss == "quantile" else {}
    model = regressor(loss=loss, **options).fit(coded, np.abs(signal) + 0.1)
    served = loaded(model)
    result = served.predict(coded)
    np.testing.assert_array_equal(result.scores[:, 0], model.predict(coded))
    np.testing.assert_array_equal(result.outputs[:, 0], model._raw_predict(coded)[:, 0])
    assert (served.task, served.output_space, served.link) == ("regression", space, link)
    assert served.trees_used == 8
    assert isinstance(served.form().derivation, IdentityDerivation)


@pytest.mark.parametrize("classes", [3, 11])
def test_rows_of_a_batch_get_what_the_library_gives_them_alone(
    signal: FloatArray, coded: FloatArray, classes: int
) -> None:
    edges = np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1])
    model = classifier().fit(coded, np.digitize(signal, edges))
    served = loaded(model)
    batch = served.predict(coded[:80])
    for index in range(80):
        row = coded[index : index + 1]
        np.testing.assert_array_equal(batch.scores[index], model.predict_proba(row)[0])
        np.testing.assert_array_equal(batch.outputs[index], model.decision_function(row)[0])
    assert (served.task, served.link, served.n_classes) == ("multiclass", "softmax", classes)


def preprocessing() -> Any:
    return make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["colour"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), ["mass", "width"]),
        (OneHotEncoder(sparse_output=False), ["rooms"]),
    )


@pytest.mark.parametrize("by_code", [None, [0]], ids=["numbers", "codes"])
def test_pipelines_are_served_and_read_as_one(
    frame: pd.DataFrame, signal: FloatArray, coded: FloatArray, by_code: list[int] | None
) -> None:
    rows = frame.dropna(subset="colour").astype({"colour": object, "rooms": float})
    final = regressor(categorical_features=by_code)
    model = make_pipeline(preprocessing(), final).fit(rows, signal[rows.index])
    served = loaded(model)
    known = coded[rows.index]
    result = served.predict(known)
    np.testing.assert_array_equal(result.scores[:, 0], model.predict(rows))
    form = served.form()
    assert set(form.derivation.players) == {0, 1, 2, 3}
    assert form.ensemble.is_category.any() == (by_code is not None)


def test_columns_chosen_by_the_types_a_pipeline_makes(
    frame: pd.DataFrame, signal: FloatArray, coded: FloatArray
) -> None:
    scale = make_column_transformer(
        (StandardScaler(), ["mass"]), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    model = make_pipeline(scale, regressor()).fit(frame, signal)
    served = loaded(model)
    assert served.columns.raw.levels == (None, CODED["colour"], None, CODED["rooms"])
    np.testing.assert_array_equal(served.predict(coded).scores[:, 0], model.predict(frame))


def test_missing_is_refused_where_a_step_refuses_it(
    frame: pd.DataFrame, signal: FloatArray
) -> None:
    rows = frame.dropna().astype({"rooms": float})[["colour", "mass"]]
    steps = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    steps.set_params(sparse_threshold=0)
    model = make_pipeline(steps, regressor()).fit(rows, signal[rows.index])
    assert loaded(model).columns.accepts_missing == (False, True)


def rewritten(data: bytes, arrays: Any = None, schema: Any = None) -> bytes:
    """The file with its arrays or its description changed."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".npy") and arrays is not None:
                buffer = io.BytesIO()
                np.save(buffer, arrays(np.load(io.BytesIO(content), allow_pickle=False)))
                content = buffer.getvalue()
            elif name == "schema.json" and schema is not None:
                content = schema(content.decode()).encode()
            copy.writestr(name, content)
    return target.getvalue()


def nodes_with(**fields: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(array: NDArray[Any]) -> NDArray[Any]:
        if array.dtype.names and len(array) > 1:
            for name, value in fields.items():
                array[name][0] = value
        return array

    return change


def narrow_sets(array: NDArray[Any]) -> NDArray[Any]:
    return array[:, :1] if array.dtype == np.uint32 and array.ndim == 2 else array


def no_category_columns(array: NDArray[Any]) -> NDArray[Any]:
    is_flags = array.dtype == np.uint8 and array.shape == (4,)
    return np.zeros_like(array) if is_flags else array


def more_outputs(array: NDArray[Any]) -> NDArray[Any]:
    return np.zeros((1, 2)) if array.shape == (1, 1) else array


def other_nodes(array: NDArray[Any]) -> NDArray[Any]:
    return np.zeros(len(array)) if array.dtype.names else array


@pytest.fixture(scope="module")
def file(frame: pd.DataFrame, signal: FloatArray) -> bytes:
    return dump_sklearn(regressor().fit(frame, signal))[0]


@pytest.mark.parametrize(
    "arrays",
    [
        nodes_with(left=0),
        nodes_with(right=10_000),
        nodes_with(feature_idx=4),
        nodes_with(feature_idx=-1),
        nodes_with(is_categorical=1, bitset_idx=99),
        nodes_with(is_categorical=1, bitset_idx=0, feature_idx=3),
        narrow_sets,
        no_category_columns,
        more_outputs,
        other_nodes,
    ],
)
def test_files_that_would_lead_the_library_out_of_its_memory_are_refused(
    file: bytes, arrays: Any
) -> None:
    assert load_sklearn(rewritten(file, arrays=lambda array: array)).trees_used == 8
    with pytest.raises(ModelLoadError, match=r"tree|broken skops file"):
        load_sklearn(rewritten(file, arrays=arrays))


def test_a_preprocessor_that_makes_too_few_columns_is_refused(file: bytes) -> None:
    def drop_numbers(schema: str) -> str:
        document = json.loads(schema)
        fitted = document["content"]["content"]["_preprocessor"]["content"]["content"]
        kept = fitted["transformers_"]["content"]
        del kept[1]
        return json.dumps(document)

    with pytest.raises(ModelLoadError, match=r"columns than the trees read|not complete"):
        load_sklearn(rewritten(file, schema=drop_numbers))


def test_nested_models_are_checked_too(signal: FloatArray, coded: FloatArray) -> None:
    model = AdaBoostClassifier(classifier(), n_estimators=2).fit(np.nan_to_num(coded), signal > 0)
    data, _ = dump_sklearn(model)
    assert load_sklearn(data).n_classes == 2
    with pytest.raises(ModelLoadError, match="tree"):
        load_sklearn(rewritten(data, arrays=nodes_with(feature_idx=4)))


def test_a_scorer_kept_from_early_stopping_is_refused_with_the_way_out(
    signal: FloatArray, coded: FloatArray
) -> None:
    model = classifier(early_stopping=True, scoring="accuracy").fit(coded, signal > 0)
    with pytest.raises(ModelLoadError, match="del model"):
        dump_sklearn(model)
    del model._raw_predict, model._scorer
    np.testing.assert_array_equal(loaded(model).predict(coded).scores, model.predict_proba(coded))


@pytest.mark.parametrize(
    "function", [partial(np.add, 1), partial(check_array, "csr")], ids=["ufunc", "checker"]
)
def test_no_other_partial_call_is_trusted(
    signal: FloatArray, coded: FloatArray, function: Any
) -> None:
    steps = FunctionTransformer(np.sin)
    model = make_pipeline(steps, regressor()).fit(coded, signal)
    steps.func = function
    with pytest.raises(ModelLoadError, match=r"not trusted: functools\.partial"):
        load_sklearn(skops.io.dumps(model))
