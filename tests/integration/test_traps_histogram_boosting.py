"""Every rule of histogram gradient boosting: our values are brute force through the library
itself, and would not be if the rule were read otherwise."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import misreadings as misread
import numpy as np
import pytest
import trap_tables as table
from misreadings import Misreading
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from stored_models import (
    Stored,
    assert_exact,
    assert_rule_matters,
    assert_trees_are_exact,
    stored,
)

from explainers.base import FloatArray
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.histogram import parse_histogram_boosting

COMMON = {"max_iter": 12, "max_leaf_nodes": 9, "min_samples_leaf": 5, "random_state": 0}
LEVELS_OF = {1: (7.0, 9.0, 12.0, 13.0, 40.0), 3: tuple(3.0 * k for k in range(45))}
"""Numbers that are categories; none is its own code."""
UNSEEN = 1000.0

Maker = Callable[[], Stored]


def fitted(
    y: Any = table.TARGET, rows: FloatArray = table.GAPPY, *, seen: Any = None, **options: Any
) -> Stored:
    """`seen`: the rows of training, where predictions are asked for others."""
    model = kind_for(y)(**(COMMON | options)).fit(rows if seen is None else seen, y)
    return stored(model, rows, outputs_of(model))


def kind_for(y: Any) -> Any:
    is_classifier = np.issubdtype(y.dtype, np.integer)
    return HistGradientBoostingClassifier if is_classifier else HistGradientBoostingRegressor


def outputs_of(model: Any) -> Callable[[FloatArray], FloatArray]:
    if hasattr(model, "decision_function"):
        return model.decision_function
    if model.loss in ("poisson", "gamma"):
        return lambda X: np.log(model.predict(X))
    return model.predict


def with_levels(
    y: Any = table.CODED_TARGET, columns: tuple[int, ...] = (1, 3), **options: Any
) -> Stored:
    """A model of categories by number; its encoder codes those that training had."""
    cells = levels_in(table.CODED, {column: LEVELS_OF[column] for column in columns})
    model = kind_for(y)(categorical_features=list(columns), **(COMMON | options)).fit(cells, y)
    library = outputs_of(model)
    known = stored(model, cells, library, names=table.NAMES)
    levels = {
        column: tuple(map(float, listed))
        for column, listed in enumerate(known.native.columns.raw.levels)
        if listed is not None
    }
    assert set(levels) == set(columns)
    return replace(
        known,
        rows=codes_of(cells, levels),
        library=lambda X: np.asarray(library(levels_in(X, levels))).reshape(len(X), -1),
    )


def levels_in(X: FloatArray, levels: dict[int, tuple[float, ...]]) -> FloatArray:
    cells = X.copy()
    for column, listed in levels.items():
        of_code = np.array([*listed, UNSEEN])
        is_known = ~np.isnan(X[:, column])
        cells[is_known, column] = of_code[X[is_known, column].astype(np.int64)]
    return cells


def codes_of(cells: FloatArray, levels: dict[int, tuple[float, ...]]) -> FloatArray:
    rows = cells.copy()
    for column, listed in levels.items():
        is_known = ~np.isnan(cells[:, column])
        rows[is_known, column] = [listed.index(level) for level in cells[is_known, column]]
    return rows


def columns_in_their_own_order(trees: TreeEnsemble) -> TreeEnsemble:
    """As if column 0 were size, not colour: the trees of a model whose codes come first."""
    raw = np.array([1, 3, 0, 2])
    moved = np.where(trees.column < 0, -1, raw[trees.column]).astype(trees.column.dtype)
    return replace(trees, column=moved)


RULES: dict[str, tuple[Maker, Misreading]] = {
    "up to the threshold": (fitted, misread.strict_comparison),
    "thresholds and numbers are float64": (fitted, misread.other_cast),
    "missing goes where missing_go_to_left says": (fitted, misread.other_missing_direction),
    "missing at prediction only": (
        lambda: fitted(seen=table.FILLED), misread.other_missing_direction,
    ),
    "the start is the baseline": (lambda: fitted(table.TARGET + 3), misread.no_base),
    "the start of each class": (lambda: fitted(table.THREE), misread.one_base_for_all),
    "trees take turns over the classes": (
        lambda: fitted(table.THREE), misread.trees_of_another_output,
    ),
    "columns of categories come first": (with_levels, columns_in_their_own_order),
    "codes in the set go left": (with_levels, misread.swapped_members),
    "missing and unseen levels go where missing_go_to_left says": (
        with_levels, misread.other_missing_direction_of_categories,
    ),
    "sets of several classes": (
        lambda: with_levels(table.CODED_THREE), misread.swapped_members,
    ),
}  # fmt: skip

ORDINARY: dict[str, Maker] = {
    "two classes": lambda: fitted(table.IS_HIGH),
    "class_weight": lambda: fitted(table.IS_HIGH, class_weight="balanced"),
    "poisson": lambda: fitted(table.POSITIVE, loss="poisson"),
    "gamma": lambda: fitted(table.POSITIVE, loss="gamma"),
    "quantile": lambda: fitted(loss="quantile", quantile=0.3),
    "absolute error": lambda: fitted(loss="absolute_error"),
    "monotonic_cst": lambda: fitted(monotonic_cst=[1, 0, -1, 0]),
    "interaction_cst": lambda: fitted(interaction_cst="pairwise"),
    "early_stopping": lambda: fitted(max_iter=50, early_stopping=True, n_iter_no_change=2),
    "only the last column is a category": lambda: with_levels(columns=(3,)),
    "poisson by level": lambda: with_levels(
        table.CODED_TARGET - table.CODED_TARGET.min() + 0.1, loss="poisson"
    ),
    "monotonic_cst beside categories": lambda: with_levels(monotonic_cst=[1, 0, -1, 0]),
    "interaction_cst beside categories": lambda: with_levels(interaction_cst=[[0, 1], [2, 3]]),
}


@pytest.mark.parametrize(("make", "misreading"), RULES.values(), ids=RULES)
def test_rule_of_the_trees_is_kept(make: Maker, misreading: Misreading) -> None:
    model = make()
    assert_exact(model)
    assert_rule_matters(model, misreading(model.trees))


@pytest.mark.parametrize("make", ORDINARY.values(), ids=ORDINARY)
def test_setting_that_needs_no_rule_of_its_own_is_exact(make: Maker) -> None:
    assert_exact(make())


def test_codes_that_are_not_known_go_where_missing_does() -> None:
    """The encoder makes unseen levels missing, so only other rows than its own hold such codes."""
    model = HistGradientBoostingRegressor(categorical_features=[1, 3], **COMMON)
    model.fit(table.CODED, table.CODED_TARGET)
    known, set_of_column = model._bin_mapper.make_known_categories_bitsets()
    rows = np.ascontiguousarray(model._preprocessor.transform(table.CODED))

    def outputs(X: FloatArray) -> FloatArray:
        trees = [stage[0].predict(X, known, set_of_column, 1) for stage in model._predictors]
        return (np.sum(trees, axis=0) + model._baseline_prediction).reshape(-1, 1)

    np.testing.assert_allclose(outputs(rows)[:, 0], model.predict(table.CODED), rtol=1e-12)
    trees = parse_histogram_boosting(model)
    assert_trees_are_exact(trees, rows, outputs, unseen=True)
    with pytest.raises(AssertionError, match="off"):
        assert_trees_are_exact(
            misread.other_out_of_range_direction(trees), rows, outputs, unseen=True
        )
