"""Models that are only called, of the kinds whose gains are distributed differently."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explainers.base import FloatArray, Naming

Model = Callable[[FloatArray], FloatArray]
Rows = Callable[[int, np.random.Generator], FloatArray]

COLUMNS = 10


@dataclass(frozen=True)
class Subject:
    """A model of COLUMNS columns, and how its rows are drawn."""

    model: Model
    rows: Rows
    n_outputs: int = 1


def naming_of(n_columns: int, n_outputs: int = 1) -> Naming:
    outputs = tuple(f"o{c}" for c in range(n_outputs))
    return Naming(tuple(f"f{i}" for i in range(n_columns)), outputs, "raw")


def network(n_columns: int, n_outputs: int = 1, *, seed: int = 0, steepness: float = 1.5) -> Model:
    """Smooth: one hidden layer of tanh."""
    rng = np.random.default_rng(seed)
    inner = rng.normal(size=(n_columns, 16)) * steepness / np.sqrt(n_columns)
    shift, outer = rng.normal(size=16) / 2, rng.normal(size=(16, n_outputs))
    return lambda X: np.asarray(np.tanh(X @ inner + shift) @ outer)


def classifier(n_columns: int, n_classes: int, *, seed: int = 0) -> Model:
    """Multiclass: a steep network's probabilities, which all columns share in."""
    logits = network(n_columns, n_classes, seed=seed, steepness=2.5)

    def probabilities(X: FloatArray) -> FloatArray:
        powers = np.exp(logits(X))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    return probabilities


def forest(n_columns: int, n_outputs: int = 1, *, seed: int = 0, depth: int = 6) -> Model:
    """Discontinuous: 30 oblivious trees."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(n_columns, size=(30, depth))
    thresholds = rng.normal(size=(30, depth)) * 0.7
    leaves = rng.normal(size=(30, 1 << depth, n_outputs)) / np.sqrt(30)
    bits = 1 << np.arange(depth)

    def grown(X: FloatArray) -> FloatArray:
        reached = ((X[:, columns] > thresholds) * bits).sum(axis=2)
        return np.asarray(leaves[np.arange(30), reached].sum(axis=1))

    return grown


def products(n_columns: int, *, seed: int = 0) -> Model:
    """Interactions alone: products of three columns."""
    rng = np.random.default_rng(seed)
    triples = np.stack([rng.choice(n_columns, size=3, replace=False) for _ in range(8)])
    weights = rng.normal(size=(8, 1))
    return lambda X: np.asarray(X[:, triples].prod(axis=2) @ weights)


def normal_rows(n_rows: int, rng: np.random.Generator) -> FloatArray:
    return rng.normal(size=(n_rows, COLUMNS))


def rows_with_rare_columns(n_rows: int, rng: np.random.Generator) -> FloatArray:
    """The second half of the columns is 1 in three rows of a hundred, else 0."""
    rare = rng.random((n_rows, COLUMNS // 2)) < 0.03
    return np.hstack([normal_rows(n_rows, rng)[:, COLUMNS // 2 :], rare])


def binary_rows(n_rows: int, rng: np.random.Generator) -> FloatArray:
    return (rng.random((n_rows, COLUMNS)) < np.linspace(0.05, 0.5, COLUMNS)).astype(np.float64)


SUBJECTS = {
    "network": Subject(network(COLUMNS, seed=1), normal_rows),
    "network, rare columns": Subject(network(COLUMNS, seed=3), rows_with_rare_columns),
    "three classes": Subject(classifier(COLUMNS, 3, seed=2), normal_rows, 3),
    "forest": Subject(forest(COLUMNS, seed=4), normal_rows),
    "forest, rare columns": Subject(forest(COLUMNS, 2, seed=5), rows_with_rare_columns, 2),
    "forest, binary columns": Subject(forest(COLUMNS, seed=9, depth=4), binary_rows),
    "products": Subject(products(COLUMNS, seed=8), normal_rows),
}
