import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mixed_pipelines import (
    BOOSTING,
    FINALS,
    FOREST,
    LOGISTIC,
    coded,
    labels,
    library_scores,
    loaded,
    mixed_frame,
    preprocessing,
    unusual_rows,
)
from scipy.sparse import csr_array
from sklearn.compose import make_column_transformer
from sklearn.feature_selection import SelectKBest, chi2, f_classif, f_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    QuantileTransformer,
    StandardScaler,
)

from explainers.base import FloatArray, Naming, UnsupportedModelError
from explainers.derive import CompiledDerivation
from explainers.preprocess import PipelineDerivation, Reach
from service.models.base import Served
from service.models.sklearn import SklearnModel
from service.models.sklearn_derived import find_shortcut
from service.models.sklearn_final import final_step
from service.registry.building import ExplainerFactory


def boosters() -> list[Any]:
    from lightgbm import LGBMClassifier
    from xgboost import XGBClassifier

    return [
        XGBClassifier(n_estimators=9, max_depth=3, n_jobs=1),
        LGBMClassifier(n_estimators=9, num_leaves=5, verbose=-1, n_jobs=1),
    ]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return mixed_frame()


def fitted(frame: pd.DataFrame, final: Any, *, sparse: bool = False, n_classes: int = 2) -> Any:
    steps = preprocessing(sparse=sparse).set_output(transform="default")
    model = Pipeline([("prepare", steps), ("model", final)])
    return model.fit(frame, labels(frame, n_classes=n_classes))


def through_pandas(adapter: SklearnModel, X: FloatArray) -> Served:
    assert adapter._prepare is not None
    return adapter.final.serve(adapter._prepare(X))


def assert_same(served: Served, expected: Served) -> None:
    np.testing.assert_array_equal(served.outputs.view(np.int64), expected.outputs.view(np.int64))
    np.testing.assert_array_equal(served.scores.view(np.int64), expected.scores.view(np.int64))


def is_compiled(adapter: SklearnModel) -> bool:
    """Whether rows take the compiled way through the preprocessing, not the library's own."""
    return adapter._shortcut is not None


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("final", [*FINALS, *boosters()], ids=lambda value: type(value).__name__)
def test_a_thousand_rows_are_served_as_by_the_pipeline_to_the_bit(
    frame: pd.DataFrame, final: Any, *, sparse: bool
) -> None:
    model = fitted(frame, final, sparse=sparse)
    adapter = loaded(model)
    assert is_compiled(adapter)
    rows = unusual_rows(frame)
    X = coded(rows, adapter.columns.raw)
    served = adapter.predict(X)
    assert_same(served, through_pandas(adapter, X))
    np.testing.assert_array_equal(served.scores[::50], library_scores(model, rows[::50]))


@pytest.mark.parametrize("final", [FOREST, BOOSTING, LOGISTIC], ids=lambda v: type(v).__name__)
def test_several_classes_are_served_as_by_the_pipeline(frame: pd.DataFrame, final: Any) -> None:
    adapter = loaded(fitted(frame, final, sparse=True, n_classes=3))
    X = coded(unusual_rows(frame), adapter.columns.raw)
    assert is_compiled(adapter)
    assert_same(adapter.predict(X), through_pandas(adapter, X))


@pytest.mark.parametrize("final", [FOREST, BOOSTING, LOGISTIC], ids=lambda v: type(v).__name__)
def test_values_are_those_of_the_pipelines_derivation(frame: pd.DataFrame, final: Any) -> None:
    from explainers.base import Background

    adapter = loaded(fitted(frame, final))
    X = coded(unusual_rows(frame), adapter.columns.raw)
    form = adapter.form()
    assert isinstance(form.derivation, CompiledDerivation)
    naming = Naming(adapter.columns.raw.names, ("y",), adapter.output_space)
    values = [
        ExplainerFactory(each, naming, 1e-9).build(Background.of(X[:50])).explain(X[50:100]).values
        for each in (form, replace(form, derivation=form.derivation.pipeline))
    ]
    np.testing.assert_array_equal(values[0], values[1])


def test_threads_are_served_the_bits_of_one(frame: pd.DataFrame) -> None:
    adapter = loaded(fitted(frame, LOGISTIC, sparse=True))
    X = coded(unusual_rows(frame), adapter.columns.raw)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(adapter.predict, np.array_split(X, 100)))
    np.testing.assert_array_equal(
        np.concatenate([part.outputs for part in parts]), adapter.predict(X).outputs
    )


@pytest.mark.parametrize("score", [f_classif, f_regression, chi2])
def test_columns_chosen_by_a_score_are_served_without_the_pipeline(
    frame: pd.DataFrame, score: Any
) -> None:
    positive = make_pipeline(preprocessing(), MinMaxScaler())
    model = make_pipeline(positive, SelectKBest(score, k=5), LOGISTIC).fit(frame, labels(frame))
    adapter = loaded(model)
    assert is_compiled(adapter)
    rows = unusual_rows(frame)
    X = coded(rows, adapter.columns.raw)
    np.testing.assert_array_equal(
        adapter.predict(X).scores[::50], library_scores(model, rows[::50])
    )


def test_steps_that_are_not_known_are_served_through_the_pipeline(frame: pd.DataFrame) -> None:
    steps = make_column_transformer(
        (make_pipeline(SimpleImputer(), QuantileTransformer(n_quantiles=50)), ["radius", "texture"])
    )
    rows = unusual_rows(frame)[["radius", "texture"]]
    model = make_pipeline(steps, FOREST).fit(rows, labels(frame))
    adapter = loaded(model)
    assert not is_compiled(adapter)
    assert isinstance(adapter.form().derivation, PipelineDerivation)
    served = adapter.predict(coded(rows, adapter.columns.raw))
    np.testing.assert_array_equal(served.scores, model.predict_proba(rows))


def test_a_model_without_an_exact_explainer_keeps_the_librarys_way(frame: pd.DataFrame) -> None:
    adapter = loaded(fitted(frame, KNeighborsClassifier(algorithm="brute")))
    assert not is_compiled(adapter)
    with pytest.raises(UnsupportedModelError):
        adapter.form()


def test_a_bare_estimator_has_nothing_to_compile(frame: pd.DataFrame) -> None:
    model = LOGISTIC.fit(frame[["texture", "grade"]], labels(frame))
    assert not is_compiled(loaded(model))


@dataclass(frozen=True, slots=True)
class Nudged:
    """A last step that serves derived rows a hair off, or not at all."""

    final: Any
    factor: float | None

    @property
    def traits(self) -> Any:
        return self.final.traits

    def serve(self, matrix: Any) -> Served:
        if self.factor is None:
            raise ValueError("these rows are refused")
        served = self.final.serve(matrix)
        return Served(served.outputs, served.scores * self.factor)

    def for_derived(self, matrix: Any) -> Any:
        return self if matrix is None else Nudged(self.final.for_derived(matrix), self.factor)

    def form(self, derivation: Any) -> Any:
        return self.final.form(derivation)


@dataclass(frozen=True, slots=True)
class NudgedOnlyDerived(Nudged):
    """Serves the library's matrices well."""

    def serve(self, matrix: Any) -> Served:
        served: Served = self.final.serve(matrix)
        return served


@pytest.mark.parametrize(
    ("kind", "factor", "is_found"),
    [
        (NudgedOnlyDerived, 1.0, True),
        (NudgedOnlyDerived, 1 + 1e-15, False),
        (Nudged, None, False),
    ],
)
def test_a_last_step_that_serves_other_bits_gets_no_shortcut(
    frame: pd.DataFrame, kind: Any, factor: float | None, *, is_found: bool
) -> None:
    model = fitted(frame, LOGISTIC)
    adapter = loaded(model)
    pipeline = PipelineDerivation(model[:-1], adapter.encoded)
    reach = Reach(adapter.columns.accepts_missing, (False,) * 6)
    final = kind(final_step(model[-1]), factor)
    assert (find_shortcut(pipeline, final, adapter.encoded, reach) is not None) == is_found


def test_rows_that_only_the_pipeline_can_judge_are_judged_by_it(frame: pd.DataFrame) -> None:
    steps = make_column_transformer(
        (make_pipeline(FunctionTransformer(np.log), StandardScaler()), ["texture"])
    )
    adapter = loaded(make_pipeline(steps, LOGISTIC).fit(frame[["texture"]], labels(frame)))
    X = coded(frame, adapter.columns.raw)
    assert is_compiled(adapter)
    assert_same(adapter.predict(X), through_pandas(adapter, X))
    X[3] = 0.0
    with (
        pytest.warns(RuntimeWarning, match="divide by zero"),
        pytest.raises(ValueError, match="infinity"),
    ):
        adapter.predict(X)


def test_many_columns_and_classes_are_added_in_little_memory() -> None:
    rng = np.random.default_rng(0)
    n_columns, n_classes = 2000, 30
    model = LogisticRegression().fit(np.eye(90), np.arange(90) % n_classes)
    model.coef_, model.n_features_in_ = rng.normal(size=(n_classes, n_columns)), n_columns
    rows = rng.integers(2, size=(300, n_columns)).astype(np.float64)
    sparse = csr_array(rows)
    step = final_step(model).for_derived(sparse)
    assert step is not None
    tracemalloc.start()
    served = step.serve(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * rows.nbytes
    np.testing.assert_array_equal(served.scores, final_step(model).serve(sparse).scores)
