"""Error of estimated Shapley values at equal numbers of model rows: ours beside others.

    EXPLAIND_TEST_DATA=... .venv/bin/python tests/benchmarks/sampled.py [--rows 6] [--seeds 4]

Three models of real tables (12 columns each, so that enumeration gives the exact values), 50
background rows. Ours is run at planned sizes; every rival is then given at least as many model
rows as ours evaluated, counted by the model itself, those that fill a call up included. Errors are
root mean squares over columns, rows and seeds, relative to ours. Exit code 1 when a rival errs
less.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import machine
import numpy as np
import pandas as pd
from measuring import use_one_core
from numpy.typing import NDArray
from targets import Target, verdict

BACKGROUND_ROWS = 50
COLUMNS = 12
PASSES = (8, 16, 32, 64)

Rows = NDArray[np.float64]
Estimate = Callable[[Rows, int, int], Rows]
"""Row (F,), model rows to spend, seed to (F,) values."""


@dataclass
class Counted:
    """A model of one output that counts its rows."""

    model: Callable[[Rows], Rows]
    rows: int = 0

    def __call__(self, X: Rows) -> Rows:
        self.rows += len(X)
        return self.model(X)


@dataclass(frozen=True)
class Subject:
    """A model of raw columns, and rows of its table."""

    name: str
    model: Counted
    background: Rows
    explained: Rows
    exact: Rows = field(init=False)

    def __post_init__(self) -> None:
        from explainers.exact import interventional_values

        exact = [
            interventional_values(lambda X: self.model(X)[:, None], x, self.background)[:, 0]
            for x in self.explained
        ]
        object.__setattr__(self, "exact", np.stack(exact))


def main() -> int:
    options = _options()
    use_one_core()
    print(machine.facts())
    targets = [
        target for subject in _subjects(options.rows) for target in _compared(subject, options)
    ]
    print(machine.load())
    return verdict(targets)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=6, help="rows explained of each table")
    parser.add_argument("--seeds", type=int, default=4, help="draws averaged over")
    return parser.parse_args()


def _subjects(n_rows: int) -> Iterator[Subject]:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.svm import SVC
    from tables import breast_cancer, larger_table

    german = larger_table("german_credit")
    network = MLPClassifier(hidden_layer_sizes=(64, 32), max_iter=300, random_state=0)
    yield _subject("german credit, network", german, german["risk"] == "bad", network, n_rows)
    bikes = larger_table("bike_sharing").iloc[::5]
    network = MLPRegressor(hidden_layer_sizes=(64, 32), max_iter=300, random_state=0)
    yield _subject("bike sharing, network", bikes, np.log1p(bikes["count"]), network, n_rows)
    cancer, y = breast_cancer()
    yield _subject("breast cancer, support vectors", cancer, y, SVC(C=10.0), n_rows)


def _subject(name: str, table: pd.DataFrame, y: Any, estimator: Any, n_rows: int) -> Subject:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = table.iloc[:, :COLUMNS]
    is_text = np.array([not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes])
    coded = [
        pd.factorize(frame[c], sort=True)[0] if t else frame[c]
        for c, t in zip(frame, is_text, strict=True)
    ]
    X = np.column_stack(coded).astype(np.float64)
    steps = make_column_transformer(
        (OneHotEncoder(sparse_output=False), np.flatnonzero(is_text)),
        (StandardScaler(), np.flatnonzero(~is_text)),
    )
    fitted = make_pipeline(steps, estimator).fit(X, y)
    order = np.random.default_rng(0).permutation(len(X))
    background, explained = X[order[:BACKGROUND_ROWS]], X[order[-n_rows:]]
    return Subject(name, Counted(_output_of(fitted)), background, explained)


def _output_of(fitted: Any) -> Callable[[Rows], Rows]:
    if hasattr(fitted, "predict_proba"):
        return lambda X: np.asarray(fitted.predict_proba(X)[:, 1])
    if hasattr(fitted, "decision_function"):
        return lambda X: np.asarray(fitted.decision_function(X))
    return lambda X: np.asarray(fitted.predict(X))


def _compared(subject: Subject, options: argparse.Namespace) -> Iterator[Target]:
    """Everybody's error at the rows ours took."""
    rivals = {
        "shap Permutation": _shap_permutation(subject),
        "shap Kernel": _shap_kernel(subject),
        "Monte Carlo": _monte_carlo(subject),
    }
    spread = float(np.sqrt(np.mean(subject.exact**2)))
    print(f"\n{subject.name}: root mean square of the values {spread:.4g}")
    print(f"{'':<24} {'passes':>7} {'model rows':>11} {'error':>10} {'x ours':>8}")
    for passes in PASSES:
        ours, spent = _error(subject, _ours(subject, passes), [0] * len(subject.explained), options)
        print(f"  {'explaind':<22} {passes:>7} {np.mean(spent):>11,.0f} {ours:>10.3g}")
        for name, estimate in rivals.items():
            error, rows = _error(subject, estimate, spent, options)
            print(
                f"  {name:<22} {'':>7} {np.mean(rows):>11,.0f} {error:>10.3g} {error / ours:>8.2f}"
            )
            yield Target(f"{subject.name}, {passes} passes: {name}, times ours", 1.0, error / ours)


def _error(
    subject: Subject, estimate: Estimate, rows: list[int], options: argparse.Namespace
) -> tuple[float, list[int]]:
    """Root mean square error, and the model rows each explained row took at least."""
    squares, spent = [], []
    for x, exact, least in zip(subject.explained, subject.exact, rows, strict=True):
        taken = []
        for seed in range(options.seeds):
            found, used = _at_least(subject.model, lambda n, s=seed, x=x: estimate(x, n, s), least)
            squares.append(np.mean((found - exact) ** 2))
            taken.append(used)
        spent.append(min(taken))
    return float(np.sqrt(np.mean(squares))), spent


def _at_least(model: Counted, call: Callable[[int], Rows], least: int) -> tuple[Rows, int]:
    """What it finds with at least so many model rows, and how many it took.

    Those that skip what cannot matter are asked for more until they took as many.
    """
    asked = least
    while True:
        before = model.rows
        found = call(asked)
        used = model.rows - before
        if used >= least:
            return found, used
        asked = max(asked + 1, int(asked * 1.02 * least / used))


def _ours(subject: Subject, passes: int) -> Estimate:
    from explainers.base import Background, Naming
    from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

    explainer = PermutationExplainer(
        lambda X: subject.model(X)[:, None],
        Background.of(subject.background),
        naming=Naming(tuple(f"c{i}" for i in range(COLUMNS)), ("output",), "raw"),
        tolerance=1e-9,
        config=PermutationConfig(passes=passes, target=np.inf),
    )
    return lambda x, _, seed: explainer.explain(x[None], seeds=np.array([seed])).values[0, :, 0]


def _shap_permutation(subject: Subject) -> Estimate:
    import shap

    masker = shap.maskers.Independent(subject.background, max_samples=BACKGROUND_ROWS)

    def estimate(x: Rows, rows: int, seed: int) -> Rows:
        orders = max(1, -(-rows // (2 * COLUMNS * BACKGROUND_ROWS)))
        explainer = shap.PermutationExplainer(subject.model, masker, seed=seed)
        found = explainer(x[None], max_evals=orders * (2 * COLUMNS + 1), silent=True)
        return np.asarray(found.values[0])

    return estimate


def _shap_kernel(subject: Subject) -> Estimate:
    import shap

    def estimate(x: Rows, rows: int, seed: int) -> Rows:
        np.random.seed(seed)  # noqa: NPY002 (what shap draws from)
        explainer = shap.KernelExplainer(subject.model, subject.background)
        coalitions = max(2 * COLUMNS, -(-(rows - BACKGROUND_ROWS - 1) // BACKGROUND_ROWS))
        return np.asarray(explainer.shap_values(x, nsamples=coalitions, l1_reg=False, silent=True))

    return estimate


def _monte_carlo(subject: Subject) -> Estimate:
    """Source: Strumbelj and Kononenko 2014, algorithm 1."""

    def estimate(x: Rows, rows: int, seed: int) -> Rows:
        rng = np.random.default_rng(seed)
        draws = max(1, -(-rows // (2 * COLUMNS)))
        values = np.empty(COLUMNS)
        for column in range(COLUMNS):
            place = rng.random((draws, COLUMNS))
            before = place < place[:, [column]]
            other = subject.background[rng.integers(BACKGROUND_ROWS, size=draws)]
            without = np.where(before, x, other)
            joined = without.copy()
            joined[:, column] = x[column]
            outputs = subject.model(np.vstack([joined, without]))
            values[column] = np.mean(outputs[:draws] - outputs[draws:])
        return values

    return estimate


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.path.insert(0, "tests/support")
    sys.exit(main())
