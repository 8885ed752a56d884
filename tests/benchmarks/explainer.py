"""Time to explain one row, and a row of a batch, beside shap and the libraries themselves.

    .venv/bin/python tests/benchmarks/explainer.py [--rows 64] [--repeat 15]

One process on one core; CPU time, which a busy machine disturbs less than the clock does; every
call gets rows it has not seen (shap, being slow, gets batches of 8). All explainers average over
the same 100 background rows, except XGBoost's pred_contribs (path-dependent: no background) and
inplace_predict (prediction alone, for scale); our values are compared with shap's. Exit code 1
when a target was missed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import machine
import models
import numpy as np
import pandas as pd
from measuring import row_microseconds, use_one_core
from numpy.typing import NDArray
from targets import Target, verdict

BACKGROUND_ROWS = 100
BACKGROUNDS = (10, 100, 1000)
BATCHES = (64, 512, 4096)
BATCH_REPEATS = 5
ENOUGH_ROWS = 3000
LARGEST_GAP = 1e-4
"""Between our values and shap's, relative to the largest."""
LEAST_ROWS_PER_SECOND = 20_000.0
LARGEST_GROWTH = 1.25
"""From background 10 to 1000: tables cost the same whatever the background."""
SHAP_ROWS = 8
OURS, SHAP = "explaind", "shap, same background"
CONTRIBUTIONS, PREDICTION = "XGBoost pred_contribs", "XGBoost inplace_predict"

Rows = NDArray[np.float64]
Call = Callable[[Rows], object]
Times = Mapping[str, tuple[float, float]]
"""Name of a call to CPU microseconds of one row, alone and in a batch."""


@dataclass(frozen=True)
class Subject:
    """A model, and what can be asked about its rows: name to a call; the first is ours.

    targets: how many times ours each call has to take for one row.
    """

    name: str
    calls: dict[str, Call]
    rows: Rows
    targets: Mapping[str, float] = field(default_factory=dict)


def main() -> int:
    options = _options()
    use_one_core()
    print(machine.facts())
    X, y = models.table()
    model = models.xgboost_model(X, y)
    targets = [
        *_rivals(X, y, model, options),
        *_throughput(model, X),
        *_growth_with_background(model, X, options),
        *_build_times(model, X, y),
    ]
    print(machine.load())
    return verdict(targets)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=64, help="rows of a batch")
    parser.add_argument("--repeat", type=int, default=15, help="batches; single rows: 20 times it")
    return parser.parse_args()


def _rivals(
    X: pd.DataFrame, y: NDArray[np.int64], model: Any, options: argparse.Namespace
) -> list[Target]:
    """Everybody's time for a row; the targets are ratios of times of one row."""
    print(f"\n{'CPU us a row, median':<34} {'1 row':>10} {'x ours':>8} ", end="")
    print(f"{f'{options.rows} rows':>10} {'x ours':>8}")
    targets = []
    for subject in _subjects(X, y, model):
        times = _measured(subject, options)
        targets += [
            Target(f"{subject.name}: {rival}, times ours", bound, times[rival][0] / times[OURS][0])
            for rival, bound in subject.targets.items()
        ]
    return targets


def _subjects(X: pd.DataFrame, y: NDArray[np.int64], model: Any) -> Iterator[Subject]:
    from sklearn.linear_model import LogisticRegression

    def subject(name: str, model: Any, targets: Mapping[str, float], X: pd.DataFrame) -> Subject:
        return Subject(name, _calls(model, X), models.varied_rows(X, ENOUGH_ROWS), targets)

    boosted = {SHAP: 40.0, CONTRIBUTIONS: 10.0, PREDICTION: 1.0}
    yield subject("XGBoost 100x6", model, boosted, X)
    yield subject("XGBoost 500x6", models.xgboost_model(X, y, trees=500), {}, X)
    wide, wide_y = models.table(columns=100)
    yield subject("XGBoost 100x6, 100 columns", models.xgboost_model(wide, wide_y), {}, wide)
    yield subject("LightGBM, 100 of 31 leaves", models.lightgbm_model(X, y), {SHAP: 20.0}, X)
    histogram = models.histogram_model(X, y)
    yield subject("HistGradientBoosting, 100 of 31 leaves", histogram, {SHAP: 20.0}, X)
    yield subject("CatBoost 100x6", models.catboost_model(X, y), {SHAP: 50.0}, X)
    yield subject("forest, 100 of depth 12", models.forest_model(X, y), {SHAP: 7.0}, X)
    yield subject("logistic regression", LogisticRegression(max_iter=1000).fit(X, y), {}, X)


def _calls(model: Any, X: pd.DataFrame) -> dict[str, Call]:
    background = X.to_numpy()[:BACKGROUND_ROWS]
    ours, shaps = _our_call(model, X, background), _shap_call(model, background)
    rows = X.to_numpy()[-3:]
    expected = _positive_class(shaps(rows))
    gap = np.abs(ours(rows) - expected).max() / np.abs(expected).max()
    assert gap < LARGEST_GAP, f"shap's values differ by {gap:.2g}"
    native = _native(model) | _on_demand(model, X) if hasattr(model, "get_booster") else {}
    return {OURS: ours, SHAP: shaps, **native}


def _our_call(model: Any, X: pd.DataFrame, background: Rows) -> Callable[[Rows], Rows]:
    explainer = _explainer(model, X, background)
    return lambda rows: explainer.explain(rows).values[:, :, 0]


def _explainer(model: Any, X: pd.DataFrame, background: Rows) -> Any:
    explainer = models.explainer_factory(model, X).build(_background(background))
    explainer.warm_up()
    return explainer


def _on_demand(model: Any, X: pd.DataFrame) -> dict[str, Call]:
    explainer = _explainer(model, X, X.to_numpy()[:BACKGROUND_ROWS])
    other = _background(X.to_numpy()[BACKGROUND_ROWS : 2 * BACKGROUND_ROWS])
    return {
        f"{OURS}, another background": lambda rows: explainer.against(other).explain(rows),
        f"{OURS}, interactions": explainer.interactions,
    }


def _background(rows: Rows) -> Any:
    from explainers.base import Background

    return Background.of(rows)


def _shap_call(model: Any, background: Rows) -> Callable[[Rows], Rows]:
    import shap

    if hasattr(model, "coef_"):
        linear = shap.LinearExplainer(model, background)
        return lambda rows: np.asarray(linear.shap_values(rows))
    # shap keeps scikit-learn's float64 thresholds as float32: unless rows are rounded as well, one
    # that lies on a threshold goes the wrong way.
    rounded = background.astype(np.float32)
    trees = shap.TreeExplainer(model, rounded, feature_perturbation="interventional")
    return lambda rows: np.asarray(
        trees.shap_values(rows.astype(np.float32), check_additivity=False)
    )


def _positive_class(values: Rows) -> Rows:
    return values[:, :, 1] if values.ndim == 3 else values


def _native(model: Any) -> dict[str, Call]:
    from xgboost import DMatrix

    booster = model.get_booster()
    booster.feature_names = None
    return {
        CONTRIBUTIONS: lambda rows: booster.predict(DMatrix(rows), pred_contribs=True),
        PREDICTION: booster.inplace_predict,
    }


def _measured(subject: Subject, options: argparse.Namespace) -> Times:
    print(subject.name)
    times: dict[str, tuple[float, float]] = {}
    for name, call in subject.calls.items():
        batch = SHAP_ROWS if name == SHAP else options.rows
        one = row_microseconds(call, subject.rows, rows=1, repeat=20 * options.repeat)
        many = row_microseconds(call, subject.rows, rows=batch, repeat=options.repeat) / batch
        times[name] = one, many
        print(f"  {name:<32} {one:>10.1f} {one / times[OURS][0]:>8.1f} ", end="")
        print(f"{many:>10.1f} {many / times[OURS][1]:>8.1f}")
    return times


def _throughput(model: Any, X: pd.DataFrame) -> Iterator[Target]:
    print("\nXGBoost 100x6, rows/s in batches of")
    call = _our_call(model, X, X.to_numpy()[:BACKGROUND_ROWS])
    for batch in BATCHES:
        rows = models.varied_rows(X, batch * (BATCH_REPEATS + 2))
        reached = batch / row_microseconds(call, rows, rows=batch, repeat=BATCH_REPEATS) * 1e6
        print(f"  {batch:<32} {reached:>10,.0f}")
        yield Target(f"XGBoost 100x6: rows/s, batches of {batch}", LEAST_ROWS_PER_SECOND, reached)


def _growth_with_background(
    model: Any, X: pd.DataFrame, options: argparse.Namespace
) -> Iterator[Target]:
    print("\nXGBoost 100x6, CPU us of one row, background of")
    rows = models.varied_rows(X, ENOUGH_ROWS)
    times = []
    for size in BACKGROUNDS:
        call = _our_call(model, X, X.to_numpy()[:size])
        times.append(row_microseconds(call, rows, rows=1, repeat=20 * options.repeat))
        print(f"  {size:<32} {times[-1]:>10.1f}")
    what = f"XGBoost 100x6: background {BACKGROUNDS[-1]}, times background {BACKGROUNDS[0]}"
    yield Target(what, LARGEST_GROWTH, times[-1] / times[0], is_least=False)


def _build_times(model: Any, X: pd.DataFrame, y: NDArray[np.int64]) -> Iterator[Target]:
    print("\nCPU seconds from the model's artifact to its explainer, tables included")
    large = models.xgboost_model(X, y, trees=500, depth=8)
    for name, built, most in (("XGBoost 100x6", model, 2.0), ("XGBoost 500x8", large, 20.0)):
        started = time.process_time()
        factory = models.explainer_factory(built, X)
        explainer = factory.build(_background(X.to_numpy()[:BACKGROUND_ROWS]))
        seconds = time.process_time() - started
        print(f"  {name:<32} {seconds:>10.2f}   {explainer.engine}, ", end="")
        print(f"{explainer.table_bytes / 2**20:.1f} MiB")
        yield Target(f"{name}: build, seconds", most, seconds, is_least=False)


if __name__ == "__main__":
    sys.exit(main())
