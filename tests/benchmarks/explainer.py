"""Time to explain one row, and a row of a batch, beside shap and the libraries themselves.

    .venv/bin/python tests/benchmarks/explainer.py [--rows 64] [--repeat 15]

One process on one core; CPU time, which a busy machine disturbs less than the clock does; every
call gets rows it has not seen (shap, being slow, gets batches of 8). All explainers average over
the same 100 background rows, except XGBoost's pred_contribs (path-dependent: no background) and
inplace_predict (prediction alone, for scale).
"""

import argparse
import itertools
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import machine
import models
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from processes import ONE_THREAD

if TYPE_CHECKING:
    from explainers.base import Explainer

BACKGROUND_ROWS = 100
LARGEST_GAP = 1e-4
SHAP_ROWS = 8
OURS = "explaind"

Rows = NDArray[np.float64]
Call = Callable[[Rows], object]


@dataclass(frozen=True)
class Subject:
    """A model, and what can be asked about its rows: name to a call; the first is ours."""

    name: str
    calls: dict[str, Call]


def main() -> None:
    options = _options()
    os.environ.update(ONE_THREAD)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore")
    print(machine.facts())
    X, y = models.table()
    print(f"\n{'CPU us a row, median':<34} {'1 row':>10} {'x ours':>8} ", end="")
    print(f"{f'{options.rows} rows':>10} {'x ours':>8}")
    for subject in _subjects(X, y):
        _print(subject, X.to_numpy(), options)
    print(machine.load())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=64, help="rows of a batch")
    parser.add_argument("--repeat", type=int, default=15, help="batches; single rows: 20 times it")
    return parser.parse_args()


def _subjects(X: pd.DataFrame, y: NDArray[np.int64]) -> Iterator[Subject]:
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    booster = models.xgboost_model(X, y)
    calls = _calls(booster, X) | _on_demand(booster, X) | _native(booster)
    yield Subject("XGBoost, 100 trees of depth 6", calls)
    leaves = LGBMClassifier(n_estimators=100, num_leaves=31, n_jobs=1, verbose=-1).fit(X, y)
    yield Subject("LightGBM, 100 trees of 31 leaves", _calls(leaves, X))
    forest = RandomForestClassifier(100, max_depth=12, random_state=0).fit(X, y)
    yield Subject("forest, 100 trees of depth 12", _calls(forest, X))
    yield Subject("logistic regression", _calls(LogisticRegression(max_iter=1000).fit(X, y), X))


def _calls(model: Any, X: pd.DataFrame) -> dict[str, Call]:
    background = X.to_numpy()[:BACKGROUND_ROWS]
    ours, shaps = _our_call(model, X, background), _shap_call(model, background)
    rows = X.to_numpy()[-3:]
    gap = np.abs(ours(rows) - _positive_class(shaps(rows))).max()
    assert gap < LARGEST_GAP, f"shap's values differ by {gap:.2g}"
    return {OURS: ours, "shap, same background": shaps}


def _our_call(model: Any, X: pd.DataFrame, background: Rows) -> Callable[[Rows], Rows]:
    explainer = _our_explainer(model, X, background)
    return lambda rows: explainer.explain(rows).values[:, :, 0]


def _on_demand(model: Any, X: pd.DataFrame) -> dict[str, Call]:
    from explainers.base import Background

    explainer = _our_explainer(model, X, X.to_numpy()[:BACKGROUND_ROWS])
    other = Background.of(X.to_numpy()[BACKGROUND_ROWS : 2 * BACKGROUND_ROWS])
    return {
        f"{OURS}, another background": lambda rows: explainer.against(other).explain(rows),
        f"{OURS}, interactions": explainer.interactions,
    }


def _our_explainer(model: Any, X: pd.DataFrame, background: Rows) -> "Explainer":
    from explainers.base import Background, Naming
    from service.models.formats import artifact_of_model, load_model
    from service.registry.building import ExplainerFactory

    names = tuple(X.columns)
    native = load_model(artifact_of_model(model), names=names)
    naming = Naming(names, ("1",), native.output_space)
    explainer = ExplainerFactory.for_model(native, naming).build(Background.of(background))
    explainer.warm_up()
    return explainer


def _shap_call(model: Any, background: Rows) -> Callable[[Rows], Rows]:
    import shap

    if hasattr(model, "coef_"):
        linear = shap.LinearExplainer(model, background)
        return lambda rows: np.asarray(linear.shap_values(rows))
    trees = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    return lambda rows: np.asarray(trees.shap_values(rows, check_additivity=False))


def _positive_class(values: Rows) -> Rows:
    return values[:, :, 1] if values.ndim == 3 else values


def _native(model: Any) -> dict[str, Call]:
    from xgboost import DMatrix

    booster = model.get_booster()
    booster.feature_names = None
    return {
        "XGBoost pred_contribs": lambda rows: booster.predict(DMatrix(rows), pred_contribs=True),
        "XGBoost inplace_predict": booster.inplace_predict,
    }


def _print(subject: Subject, table: Rows, options: argparse.Namespace) -> None:
    print(subject.name)
    ours: tuple[float, float] | None = None
    for name, call in subject.calls.items():
        batch = SHAP_ROWS if name.startswith("shap") else options.rows
        one = _microseconds(call, table, rows=1, repeat=20 * options.repeat)
        many = _microseconds(call, table, rows=batch, repeat=options.repeat) / batch
        ours = ours or (one, many)
        print(f"  {name:<32} {one:>10.1f} {one / ours[0]:>8.1f} ", end="")
        print(f"{many:>10.1f} {many / ours[1]:>8.1f}")


def _microseconds(call: Call, table: Rows, *, rows: int, repeat: int) -> float:
    starts = itertools.cycle(range(0, len(table) - rows, rows))
    times = []
    for start in itertools.islice(starts, repeat + 1):
        chosen = table[start : start + rows]
        started = time.process_time()
        call(chosen)
        times.append(time.process_time() - started)
    return statistics.median(times[1:]) * 1e6


if __name__ == "__main__":
    main()
