"""What registration accepts, records and refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from schemas import ModelSchema
from service.errors import InvalidInputError
from service.registry import Registration, Registry
from service.registry.card import summary
from service.registry.work import Options

Fitted = tuple[Any, pd.DataFrame, pd.Series]


@pytest.fixture
def empty(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def register(registry: Registry, fitted: Fitted, **options: Any) -> Registration:
    return registry.register("m", *fitted, options=Options(**options))


def saved(registry: Registry, fitted: Fitted, suffix: str = "ubj") -> tuple[Path, Path]:
    """A model file and a CSV with the target `y`."""
    model, X, y = fitted
    folder = Path(registry.path).parent
    model.save_model(folder / f"model.{suffix}")
    X.assign(y=y).to_csv(folder / "data.csv", index=False)
    return folder / f"model.{suffix}", folder / "data.csv"


def assert_nothing_was_written(registry: Registry) -> None:
    assert registry.layout.names() == []
    assert [p for p in Path(registry.path).glob("**/*") if p.name != ".lock"] == []


def test_every_kind_of_column_is_inferred(empty: Registry, forms: Fitted) -> None:
    columns = {c.name: (c.kind, c.nullable) for c in register(empty, forms).model.schema.columns}
    assert columns == {
        "radius": ("number", False),
        "texture": ("number", True),
        "area": ("number", False),
        "smoothness": ("number", False),
        "site": ("category", True),
        "grade": ("category", False),
        "visits": ("integer", False),
        "smoker": ("boolean", False),
    }


def test_draw_of_the_background_is_recorded(empty: Registry, small: Fitted) -> None:
    first = register(empty, small, background_rows=30, seed=5).model
    again = register(empty, small, background_rows=30, seed=5).model
    other = register(empty, small, background_rows=30, seed=6).model
    entry = first.manifest.background
    assert (entry.rows, entry.seed, entry.drawn_from_rows) == (30, 5, 200)
    assert entry.digest == again.background.digest == first.background.digest
    assert other.background.digest != entry.digest
    assert np.unique(first.background.rows, axis=0).shape == (30, 4)


def test_background_is_all_rows_when_there_are_no_more(empty: Registry, small: Fitted) -> None:
    background = register(empty, small, background_rows=500).model.background
    np.testing.assert_array_equal(background.rows, small[1].to_numpy())


def test_files_with_rows_of_people_are_for_their_owner_only(registry: Registry) -> None:
    folder = registry.layout.folder("small", 1)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes["background.json"] == modes["golden.json"] == modes["tables.npy"] == 0o600


def test_unnamed_arrays_get_numbered_columns(empty: Registry, small: Fitted) -> None:
    from xgboost import XGBClassifier

    X, y = small[1].to_numpy(), small[2].to_numpy()
    model = XGBClassifier(n_estimators=3, n_jobs=1).fit(X, y)
    assert register(empty, (model, X, y)).model.schema.names == ("x0", "x1", "x2", "x3")


def test_frames_with_numbers_for_names_are_named_as_the_library_does(
    empty: Registry, small: Fitted
) -> None:
    from xgboost import XGBClassifier

    X = small[1].set_axis(range(4), axis=1)
    model = XGBClassifier(n_estimators=3, n_jobs=1).fit(X, small[2])
    assert register(empty, (model, X, small[2])).model.schema.names == ("0", "1", "2", "3")


def test_wrapper_hands_over_its_classes(empty: Registry, small: Fitted) -> None:
    from lightgbm import LGBMClassifier

    y = small[2].map({0: "malignant", 1: "benign"})
    model = LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(small[1], y)
    made = register(empty, (model, small[1], y))
    assert made.model.manifest.classes == ("benign", "malignant")


def test_columns_the_model_does_not_read_are_ignored_and_reported(
    empty: Registry, small: Fitted
) -> None:
    model, X, y = small
    made = register(empty, (model, X.iloc[:, ::-1].assign(note="free text"), y))
    assert made.report.ignored_columns == ("note",)
    assert made.model.schema.names == tuple(X.columns)


@pytest.mark.parametrize(
    ("change", "options", "refusal"),
    [
        (lambda X, y: (X.iloc[:9], y[:9]), {}, "9 rows are too few"),
        (lambda X, y: (X, y[:-1]), {}, "y must have 200 entries"),
        (lambda X, y: (X, y.astype(float).where(y == 1)), {}, "none of them missing"),
        (lambda X, y: (X.iloc[:, :3], y), {}, "columns the data do not have: 'mean_area'"),
        (lambda X, y: (X.rename(columns={"mean_area": "mean_radius"}), y), {}, "several columns"),
        (lambda X, y: (X.astype({"mean_area": str}), y), {}, "the model reads numbers"),
        (lambda X, y: (X.assign(mean_area=np.inf), y), {}, "beyond float32"),
        (lambda X, y: (X, y.map({0: "m", 1: "b"})), {}, "the model's classes are 0,1"),
        (lambda X, y: (X, y), {"classes": ("benign", "malignant")}, "none of the classes"),
        (lambda X, y: (X, y), {"classes": ("0", "1", "2")}, "2 classes, --classes names 3"),
        (
            lambda X, y: (X, y.map({0: "m", 1: "b"})),
            {"classes": ("b", "m")},
            r"log-loss .* with m,b it is .* the order is wrong",
        ),
        (lambda X, y: (X, y), {"background_rows": 0}, "at least one row"),
        (lambda X, y: (X, y), {"seed": -1}, "not negative"),
        (lambda X, y: (X, y), {"categories": {"nose": ("a",)}}, "columns the model does not have"),
    ],
)
def test_doubtful_data_are_refused_and_leave_nothing_behind(
    empty: Registry, small: Fitted, change: Any, options: dict[str, Any], refusal: str
) -> None:
    X, y = change(small[1], small[2])
    with pytest.raises(InvalidInputError, match=refusal):
        register(empty, (small[0], X, y), **options)
    assert_nothing_was_written(empty)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 65, "ä"])
def test_name_that_is_no_folder_name_is_refused(empty: Registry, small: Fitted, name: str) -> None:
    with pytest.raises(InvalidInputError, match="use 1 to 64 letters"):
        empty.register(name, *small)


def test_failure_while_writing_leaves_no_draft(empty: Registry, small: Fitted) -> None:
    def fail(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        empty.register("m", *small, on_progress=fail)
    with pytest.raises(ZeroDivisionError), empty.layout.draft("m") as draft:
        (draft / "half").write_bytes(bytes(1 // 0))
    assert_nothing_was_written(empty)


@pytest.mark.parametrize("target", [["a", "b"] * 100, [True, np.inf] * 100, ["1", "2"] * 100])
def test_target_of_a_regression_must_be_finite_numbers(
    empty: Registry, small: Fitted, target: list[object]
) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(small[1], small[2])
    with pytest.raises(InvalidInputError, match="finite numbers"):
        register(empty, (model, small[1], pd.Series(target)))


def test_classes_of_a_regression_are_refused(empty: Registry, small: Fitted) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(small[1], small[2])
    with pytest.raises(InvalidInputError, match="this model is a regression"):
        register(empty, (model, small[1], small[2]), classes=("0", "1"))


def test_missing_where_the_model_takes_none_is_refused(empty: Registry, small: Fitted) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=5000).fit(small[1], small[2])
    holed = small[1].mask(small[1] < small[1].quantile(0.05))
    schema = register(empty, (model, small[1], small[2])).model.schema
    for options in ({}, {"schema": schema}):
        with pytest.raises(InvalidInputError, match="the model takes none there"):
            register(empty, (model, holed, small[2]), **options)


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_model_that_always_says_the_same_is_explained_by_zeros(
    empty: Registry, small: Fitted, value: float
) -> None:
    from sklearn.tree import DecisionTreeRegressor

    y = pd.Series(np.full(200, value))
    made = register(empty, (DecisionTreeRegressor().fit(small[1], y), small[1], y))
    assert made.report.quality == "the target is constant, mean squared error 0"
    assert made.report.warnings == ()
    assert made.model.explainer is not None
    explanation = made.model.explainer.explain(small[1].to_numpy()[:3])
    assert not explanation.values.any()
    assert explanation.base_values.tolist() == [[value]] * 3


def test_model_of_one_column_is_proven(empty: Registry, small: Fitted) -> None:
    from lightgbm import LGBMClassifier

    X = small[1].iloc[:, :1]
    model = LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(X, small[2])
    proof = register(empty, (model, X, small[2])).model.manifest.proof
    assert proof.oracle_gap is not None
    assert proof.oracle_gap < 1e-9


def test_data_the_model_was_not_trained_on_are_warned_of(empty: Registry, small: Fitted) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(small[1].to_numpy(), small[2])
    reordered = small[1].to_numpy()[:, ::-1]
    made = register(empty, (model, reordered, small[2]))
    assert any("worse than a constant" in warning for warning in made.report.warnings)


def test_edited_schema_is_kept_and_its_rows_alone_are_used(empty: Registry, small: Fitted) -> None:
    document = register(empty, small).model.schema.to_json()
    properties: Any = document["properties"]
    properties["mean_area"] |= {"maximum": 700}
    made = register(empty, small, schema=ModelSchema.from_json(orjson.dumps(document)))
    refused = int((small[1]["mean_area"] > 700).sum())
    assert made.report.warnings == (f"the schema refuses {refused} rows of the data",)
    assert made.model.schema.to_json() == document
    assert made.model.background.rows[:, 3].max() <= 700


def test_schema_that_admits_no_row_is_refused(empty: Registry, small: Fitted) -> None:
    document = register(empty, small).model.schema.to_json()
    properties: Any = document["properties"]
    properties["mean_area"] |= {"maximum": 1}
    with pytest.raises(InvalidInputError, match="admits no row"):
        register(empty, small, schema=ModelSchema.from_json(orjson.dumps(document)))


def test_category_maps_are_never_guessed(empty: Registry, small: Fitted) -> None:
    from xgboost import XGBClassifier

    X = small[1].assign(kind=np.arange(200) % 3)
    prepared = X.astype({"kind": "category"})
    model = XGBClassifier(n_estimators=5, enable_categorical=True, n_jobs=1)
    model.fit(prepared, small[2])
    booster = model.get_booster()
    document = orjson.loads(booster.save_raw("json"))
    document["learner"]["gradient_booster"]["model"].pop("cats", None)
    path, data = saved(empty, (model, X, small[2]), "json")
    path.write_bytes(orjson.dumps(document))
    with pytest.raises(InvalidInputError, match=r"'kind'.*--categories"):
        empty.register_file("m", path, data, "y")
    made = empty.register_file(
        "m", path, data, "y", options=Options(categories={"kind": (0, 1, 2)})
    )
    assert made.model.schema.columns[-1].levels == (0, 1, 2)


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_file_and_notebook_make_the_same_version(
    empty: Registry, small: Fitted, suffix: str
) -> None:
    made = empty.register_file("file", *saved(empty, small, suffix), "y").model
    same = register(empty, small).model
    assert made.schema == same.schema
    assert made.background.digest == same.background.digest
    assert made.manifest.classes == same.manifest.classes == (0, 1)


def test_target_the_model_reads_is_refused(empty: Registry, small: Fitted) -> None:
    model, data = saved(empty, small)
    with pytest.raises(InvalidInputError, match="reads the target 'mean_area' as an input"):
        empty.register_file("m", model, data, "mean_area")


def test_text_classes_that_look_like_numbers_stay_text(empty: Registry, small: Fitted) -> None:
    from sklearn.tree import DecisionTreeClassifier
    from skops.io import dump

    y = small[2].map({0: "01", 1: "02"})
    path = Path(empty.path).parent / "model.skops"
    dump(DecisionTreeClassifier(max_depth=2).fit(small[1], y), path)
    _, data = saved(empty, (small[0], small[1], y))
    made = empty.register_file("m", path, data, "y")
    assert made.model.manifest.classes == ("01", "02")


def test_objective_that_cannot_be_served_is_refused(empty: Registry, small: Fitted) -> None:
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=2, objective="binary:hinge").fit(small[1], small[2])
    with pytest.raises(InvalidInputError, match="binary:hinge"):
        register(empty, (model, small[1], small[2]))
    with pytest.raises(InvalidInputError, match="binary:hinge"):
        empty.register_file("m", *saved(empty, (model, small[1], small[2])), "y")


def test_file_that_is_no_model_is_refused(empty: Registry, small: Fitted) -> None:
    model, data = saved(empty, small)
    pickled = model.with_suffix(".pkl")
    pickled.write_bytes(b"\x80\x04.")
    for path in (pickled, data):
        with pytest.raises(InvalidInputError, match="save it in its library's own format"):
            empty.register_file("m", path, data, "y")
    with pytest.raises(InvalidInputError, match="No such file"):
        empty.register_file("m", model.with_name("absent.ubj"), data, "y")


def test_names_and_order_taken_from_the_data_are_warned_of(empty: Registry, small: Fitted) -> None:
    from xgboost import XGBClassifier

    _, X, y = small
    nameless = XGBClassifier(n_estimators=5, n_jobs=1).fit(X.to_numpy(), y)
    made = empty.register_file("m", *saved(empty, (nameless, X, y)), "y")
    warning = f"the model stores no column names; the data's order was taken: {', '.join(X)}"
    assert made.model.manifest.warnings == (warning,)
    assert f"  warning     {warning}" in summary(
        made.model.manifest, made.report, made.model.schema
    )
    assert empty.register_file("m", *saved(empty, small), "y").model.manifest.warnings == ()


def test_trees_beyond_the_best_iteration_are_warned_of(empty: Registry, small: Fitted) -> None:
    from xgboost import DMatrix, train

    _, X, y = small
    data = DMatrix(X, y)
    noise = DMatrix(X, 1 - y)
    booster = train(
        {"objective": "binary:logistic", "nthread": 1}, data, 20, evals=[(noise, "other")],
        early_stopping_rounds=3, verbose_eval=False,
    )  # fmt: skip
    made = register(empty, (booster, X, y))
    assert made.report.warnings == ("serves 1 of 4 trees (best_iteration)",)


def test_levels_the_model_does_not_know_are_warned_of(empty: Registry, forms: Fitted) -> None:
    model, X, y = forms
    strange = X.assign(grade=X["grade"].where(np.arange(len(X)) % 4 > 0, "unheard of"))
    made = register(empty, (model, strange, y))
    (warning,) = made.report.warnings
    assert warning.startswith("column 'grade': 25.1% of the cells hold levels the model does not")


def test_boolean_target_names_the_classes_the_library_numbered(
    empty: Registry, small: Fitted
) -> None:
    from xgboost import XGBClassifier

    y = small[2] == 1
    model = XGBClassifier(n_estimators=5, n_jobs=1).fit(small[1], y)
    classes = register(empty, (model, small[1], y)).model.manifest.classes
    assert classes is not None
    assert [(type(label), label) for label in classes] == [(bool, False), (bool, True)]


def test_class_names_that_look_like_other_numbers_stay_text(empty: Registry, small: Fitted) -> None:
    y = small[2].map({0: "01", 1: "02"})
    files = saved(empty, (small[0], small[1], y))
    made = empty.register_file("m", *files, "y", options=Options(classes=["01", "02"]))
    assert made.model.manifest.classes == ("01", "02")
