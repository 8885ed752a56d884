"""Swapped columns and labels, on versions made of plain functions."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas import Column
from service.gate.bounds import Bounds
from service.gate.findings import Finding
from service.gate.labels import label_findings
from service.gate.predictions import prediction_findings
from service.gate.sides import Pair, Side

Array = NDArray[np.float64]
COLUMNS = 40


@dataclass(frozen=True)
class Formula:
    """A registered version as far as the gate looks at one: a regression of numbers."""

    f: Callable[[Array], Array]
    columns: int
    classes: tuple[str, ...] | None = None

    @property
    def manifest(self) -> Any:
        explainer = SimpleNamespace(output_space="raw", output_names=("y",))
        task = "regression" if self.classes is None else "classification"
        return SimpleNamespace(task=task, classes=self.classes, explainer=explainer)

    @property
    def schema(self) -> Any:
        names = tuple(f"x{i}" for i in range(self.columns))
        return SimpleNamespace(names=names, columns=tuple(Column(n, "number") for n in names))

    def evaluate(self, X: Array) -> Array:
        return self.f(X)[:, None]


def side(f: Callable[[Array], Array], X: Array, values: Array | None) -> Side:
    model: Any = Formula(f, X.shape[1])
    y = model.evaluate(X)
    return Side(model, X, y, y, values, None)


def swap(old: Callable[[Array], Array], a: int, b: int, X: Array, values: Array | None) -> Finding:
    """What is found where the new version is the old one with two columns swapped."""

    def new(X: Array) -> Array:
        swapped = X.copy()
        swapped[:, [a, b]] = swapped[:, [b, a]]
        return old(swapped)

    pair = Pair(side(old, X, values), side(new, X, values))
    (found,) = (
        each for each in prediction_findings(pair, Bounds()) if each.check == "swapped_columns"
    )
    return found


def test_the_columns_that_matter_are_swapped_first() -> None:
    """Of 780 pairs the last in the table's order, which 500 tries would not come to."""
    X = np.random.default_rng(0).normal(size=(400, COLUMNS))
    values = np.full((100, COLUMNS, 1), 0.01)
    values[:, [38, 39]] = 1.0

    def old(X: Array) -> Array:
        return np.asarray(2.0 * X[:, 38] - X[:, 39])

    found = swap(old, 38, 39, X, values)
    assert (found.verdict, found.at) == ("block", "x38, x39")
    assert "500 of 780 pairs tried" in found.detail


def test_columns_with_gaps_are_swapped_where_both_are_present() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    X[rng.random(400) < 0.5, 1] = np.nan

    def old(X: Array) -> Array:
        return np.asarray(2.0 * X[:, 0] - np.nan_to_num(X[:, 1]))

    found = swap(old, 0, 1, X, None)
    assert (found.verdict, found.at) == ("block", "x0, x1")
    assert "3 of 3 pairs tried" in found.detail


def labelled(codes: NDArray[np.int64], old: Array, new: Array) -> dict[str, Finding]:
    classes = ("a", "b", "c")
    model: Any = Formula(lambda X: X[:, 0], 1, classes)
    X = np.zeros((len(codes), 1))
    pair = Pair(*(Side(model, X, scores, scores, None, None) for scores in (old, new)))
    labels = [classes[code] for code in codes]
    return {each.check: each for each in label_findings(pair, labels, Bounds(), seed=0)}


def test_a_class_without_labels_does_not_hide_that_the_others_are_told_apart_worse() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(2, size=300)
    good, bad = np.eye(3)[codes], rng.random((300, 3))
    found = labelled(codes, good, bad)
    assert found["auc_drop"].verdict == "block"
    assert "no row is labelled c" in found["auc_drop"].detail
    assert labelled(codes, good, good)["auc_drop"].verdict == "pass"


@pytest.mark.parametrize("code", [0, 2])
def test_labels_of_one_class_tell_nothing(code: int) -> None:
    scores = np.random.default_rng(0).random((50, 3))
    assert labelled(np.full(50, code), scores, scores)["auc_drop"].verdict == "skip"
