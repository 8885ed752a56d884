"""What registration proves, and that each proof can fail."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mixed_pipelines import FOREST, labels, mixed_frame, preprocessing
from sklearn.pipeline import make_pipeline

from explainers.base import Background, FloatArray, Naming
from service.errors import InvalidInputError
from service.models.base import Served
from service.models.formats import artifact_of_model, load_model
from service.registry import Registry, proof
from service.registry.building import ExplainerFactory
from service.registry.registering import _choose_explainer, _prepare
from service.registry.work import Options, Source

Fitted = tuple[Any, pd.DataFrame, pd.Series]


@dataclass
class Shifted:
    """A model whose predictions are off from what its file says."""

    native: Any
    factor: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.native, name)

    def predict(self, X: FloatArray) -> Served:
        served = self.native.predict(X)
        return Served(served.outputs * self.factor, served.scores)


def native_of(model: Any) -> Any:
    return load_model(artifact_of_model(model))


def factory_of(native: Any) -> ExplainerFactory:
    return ExplainerFactory.for_model(native, Naming(native.columns.raw.names, ("y",), "log_odds"))


@pytest.mark.parametrize(("factor", "is_proven"), [(1.0, True), (1 + 1e-5, False), (0.5, False)])
def test_explainer_that_reads_the_model_differently_is_not_used(
    small: Fitted, factor: float, *, is_proven: bool
) -> None:
    model, X, y = small
    source = Source(artifact_of_model(model), Shifted(native_of(model), factor), X, y)
    work = _prepare(source, Options(), lambda _: None)
    _choose_explainer(work)
    assert (work.explainer is not None) == is_proven
    assert ("our reading of the model is" in (work.reason or "")) == (not is_proven)
    assert bool(work.warnings) == (not is_proven)


@pytest.mark.parametrize(("factor", "is_right"), [(1.0, True), (1 + 2**-52, False)])
def test_preprocessing_compiled_wrongly_is_not_registered(factor: float, *, is_right: bool) -> None:
    frame = mixed_frame()
    model = make_pipeline(preprocessing(), FOREST).fit(frame, labels(frame))
    native = native_of(model)
    derivation = native._shortcut.derivation
    numbers = [
        replace(
            part,
            functions=(*part.functions, np.multiply),
            operands=(*part.operands, (np.full(len(part.sources), factor),)),
        )
        for part in derivation.plan.numbers
    ]
    derivation.plan = replace(derivation.plan, numbers=tuple(numbers))
    source = Source(artifact_of_model(model), native, frame, pd.Series(labels(frame)))
    work = _prepare(source, Options(), lambda _: None)
    if is_right:
        _choose_explainer(work)
        assert work.explainer is not None
    else:
        with pytest.raises(InvalidInputError, match="compiled preprocessing differs"):
            _choose_explainer(work)


def test_oracle_tells_an_explainer_of_another_model(small: Fitted) -> None:
    from xgboost import XGBClassifier

    model, X, y = small
    other = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1).fit(X, y)
    rows = X.to_numpy(dtype=np.float64)
    background = Background.of(rows[:30])
    native = native_of(model)

    def gap(explained: Any) -> float:
        result = proof.run_oracle(
            factory_of(native_of(explained)), native, background, rows[50:53], lambda *_: None
        )
        assert result.rows == 3
        return result.gap

    assert gap(model) <= proof.ORACLE_TOLERANCE
    assert gap(other) > proof.ORACLE_TOLERANCE


def test_base_values_of_another_background_show(small: Fitted) -> None:
    rows = small[1].to_numpy(dtype=np.float64)
    native = native_of(small[0])
    explainer = factory_of(native).build(Background.of(rows[:30]))
    assert proof.base_value_gap(explainer, native, Background.of(rows[:30])) < 1e-6
    assert proof.base_value_gap(explainer, native, Background.of(rows[30:60])) > 1e-3


@pytest.mark.parametrize(
    ("ours", "theirs", "gap"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1.0, 2.2], [1.0, 2.0], 0.1),
        ([0.0, 0.1], [0.0, 0.0], np.inf),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
    ],
)
def test_relative_gap_lets_neither_nan_nor_small_scales_pass(
    ours: list[float], theirs: list[float], gap: float
) -> None:
    found = proof.relative_gap(np.array(ours)[:, None], np.array(theirs)[:, None])
    assert found == pytest.approx(gap)


@pytest.mark.parametrize("n_columns", [1, 5, 6, 7, 30])
def test_groups_of_the_oracle_cover_every_column(n_columns: int) -> None:
    groups = proof.column_groups(n_columns)
    assert set(np.concatenate(groups).tolist()) == set(range(n_columns))
    assert {len(group) for group in groups} == {min(6, n_columns)}


def test_hard_rows_are_rows_the_service_could_send(tmp_path: Path, forms: Fitted) -> None:
    model = Registry(tmp_path / "registry").register("m", *forms).model
    rows = model.background.rows
    hard = proof.hard_rows(factory_of(model.native), model.schema, rows)
    assert hard.shape == (proof.EDGE_ROWS, rows.shape[1])
    for column, cells in zip(model.schema.columns, hard.T, strict=True):
        assert np.isnan(cells).any() == column.nullable
        if column.levels is not None:
            known = set(range(len(column.levels)))
            assert set(cells[~np.isnan(cells)].tolist()) <= known


def test_golden_rows_are_spread_from_the_lowest_output_to_the_highest() -> None:
    outputs = np.random.default_rng(0).normal(size=(50, 1))
    chosen = proof.spread_rows(outputs.copy(), outputs, 8)
    assert chosen[0] == outputs.min()
    assert chosen[-1] == outputs.max()
    assert len(chosen) == 8
    assert len(proof.spread_rows(outputs[:3], outputs[:3], 8)) == 3


@pytest.mark.parametrize("offset", [2e3, 1e6])
def test_an_offset_far_above_the_spread_costs_no_explanation(tmp_path: Path, offset: float) -> None:
    from xgboost import XGBRegressor

    rng = np.random.default_rng(3)
    X = pd.DataFrame(rng.normal(size=(400, 4)), columns=list("abcd"))
    y = offset + 5 * X["a"] + rng.normal(size=400)
    model = XGBRegressor(n_estimators=50, n_jobs=1).fit(X, y)
    made = Registry(tmp_path).register("far", model, X, y)
    assert made.model.explainer is not None


def test_tables_are_compared_where_the_rest_is_walked(small: Fitted) -> None:
    model, X, _ = small
    native = native_of(model)
    rows = X.to_numpy(dtype=np.float64)[:30]
    factory, background = factory_of(native), Background.of(rows)
    mixed = factory.build(background)
    mixed.explain(rows)
    object.__setattr__(mixed, "_walked", factory.build(background, engine="walk")._walked)  # type: ignore[attr-defined]
    assert mixed.engine == "walk"
    gap = proof.engines_gap(factory, mixed, background, rows)
    assert gap is not None
    assert gap > proof.ENGINES_TOLERANCE  # every tree counts twice


def test_rounding_excuses_no_wrong_values(small: Fitted) -> None:
    model, X, _ = small
    native = native_of(model)
    rows = X.to_numpy(dtype=np.float64)[:5]
    factory = factory_of(native)
    background = Background.of(X.to_numpy(dtype=np.float64)[:20])
    honest = proof.run_oracle(factory, native, background, rows, lambda *_: None)
    shifted = proof.run_oracle(
        factory, Shifted(native, 1 + 1e-4), background, rows, lambda *_: None
    )
    assert honest.gap <= proof.ORACLE_TOLERANCE < shifted.gap
