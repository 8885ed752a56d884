"""Figures of tallies against scikit-learn's, and their standard errors against repetition."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from labelling import scored, two_classes
from sklearn.metrics import brier_score_loss, roc_auc_score

from service.evidence.labelled import Outcome
from service.performance.measures import aucs, change, figures
from service.performance.tally import ROWS, Shape, Tally

BINARY = Shape(("0", "1"))
THREE = Shape(("a", "b", "c"))
NUMBER = Shape(())


def tally_of(shape: Shape, *found: Outcome) -> Tally:
    tally = shape.empty()
    for outcome in found:
        shape.count([outcome], tally)
    return tally


def binary(count: int, strength: float, seed: int = 0) -> Tally:
    scores, labels = scored(count, strength=strength, seed=seed)
    return tally_of(BINARY, Outcome([two_classes(p) for p in scores], labels))


def test_auc_and_brier_are_scikit_learns() -> None:
    scores, labels = scored(3000, strength=0.7)
    found = figures(BINARY, binary(3000, 0.7))
    assert found["auc"].value == pytest.approx(roc_auc_score(labels, scores), abs=5e-4)
    assert found["brier"].value == pytest.approx(brier_score_loss(labels, scores))


def test_scores_that_are_all_tiny_are_still_ranked() -> None:
    scores, labels = scored(2000, strength=0.7)
    rare = scores * 1e-4
    tally = tally_of(BINARY, Outcome([two_classes(p) for p in rare], labels))
    assert figures(BINARY, tally)["auc"].value == pytest.approx(
        roc_auc_score(labels, rare), abs=2e-3
    )


@pytest.mark.parametrize("measure", ["auc", "brier"])
def test_standard_errors_are_the_spread_of_repetitions(measure: str) -> None:
    found = [figures(BINARY, binary(300, 0.7, seed))[measure] for seed in range(300)]
    spread = np.std([one.value for one in found])
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.15)


def test_the_macro_auc_of_several_classes_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 2000)
    raw = rng.normal(size=(2000, 3)) + 1.2 * np.eye(3)[truth]
    P = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    predictions = [{"label": "a", "probabilities": dict(zip("abc", p, strict=True))} for p in P]
    tally = tally_of(THREE, Outcome(predictions, ["abc"[k] for k in truth]))
    expected = roc_auc_score(truth, P, multi_class="ovr", average="macro")
    assert figures(THREE, tally)["auc"].value == pytest.approx(expected, abs=1e-3)


def test_a_class_with_few_instances_has_no_auc() -> None:
    P = [{"label": "a", "probabilities": {"a": 0.6, "b": 0.3, "c": 0.1}}] * 30
    tally = tally_of(THREE, Outcome(P, ["a"] * 15 + ["b"] * 12 + ["c"] * 3))
    assert set(aucs(THREE, tally)) == {"a", "b"}
    assert "auc" not in figures(BINARY, tally_of(BINARY, Outcome([two_classes(0.2)] * 9, [0] * 9)))


def test_regression_errors() -> None:
    rng = np.random.default_rng(5)
    truth, error = rng.normal(size=400), rng.normal(size=400)
    predictions = [{"value": float(v)} for v in truth + error]
    found = figures(NUMBER, tally_of(NUMBER, Outcome(predictions, truth.tolist())))
    assert found["rmse"].value == pytest.approx(math.sqrt(np.mean(error**2)))
    assert found["mae"].value == pytest.approx(np.mean(np.abs(error)))
    assert found["rmse"].standard_error == pytest.approx(1 / math.sqrt(800), rel=0.2)
    assert set(found) == {"rmse", "mae"}


def test_calibration_error_is_the_gap_of_forecast_and_frequency() -> None:
    rng = np.random.default_rng(7)
    p = rng.random(20_000)
    honest = (rng.random(20_000) < p).astype(int).tolist()
    boastful = (rng.random(20_000) < 0.5 + (p - 0.5) / 2).astype(int).tolist()
    for labels, expected in ((honest, 0.0), (boastful, 0.125)):
        tally = tally_of(BINARY, Outcome([two_classes(v) for v in p], labels))
        found = figures(BINARY, tally)["calibration_error"]
        assert found.value == pytest.approx(expected, abs=0.012)
        assert found.standard_error < 0.004


def test_tallies_of_parts_add_up_and_what_has_no_label_is_not_counted() -> None:
    scores, labels = scored(200, strength=1.0)
    predictions = [two_classes(p) for p in scores]
    halves = [tally_of(BINARY, Outcome(predictions[i::2], labels[i::2])) for i in (0, 1)]
    assert np.allclose(halves[0] + halves[1], tally_of(BINARY, Outcome(predictions, labels)))
    partly = Outcome([*predictions[:3], None], [0, None, 1, 1])
    assert tally_of(BINARY, partly)[ROWS] == 2


def test_a_fall_is_an_alarm_only_when_large_and_beyond_noise() -> None:
    good, bad, slightly = (binary(4000, strength) for strength in (1.0, 0.5, 0.95))
    fall = change(BINARY, good, bad)
    assert fall is not None
    assert fall.is_alarm
    assert not fall.is_over
    small = change(BINARY, good, slightly)
    assert small is not None
    assert (small.is_alarm, small.is_over) == (False, True)
    noisy = change(BINARY, binary(40, 0.5, 1), binary(40, 0.2, 2))
    assert noisy is not None
    assert noisy.worse > noisy.limit
    assert not noisy.is_alarm


def test_pairs_of_windows_of_200_that_are_alike_raise_an_alarm_at_the_designed_rate() -> None:
    tallies = [binary(200, 0.7, seed) for seed in range(2000)]
    found = [change(BINARY, *pair) for pair in zip(tallies[::2], tallies[1::2], strict=True)]
    assert np.mean([one is not None and one.is_alarm for one in found]) <= 0.04


def test_a_rise_of_the_error_is_a_share_of_what_it_was() -> None:
    def tally(scale: float) -> Tally:
        noise = np.random.default_rng(9).normal(scale=scale, size=2000)
        return tally_of(NUMBER, Outcome([{"value": float(e)} for e in noise], [0] * 2000))

    worse = change(NUMBER, tally(50.0), tally(60.0))
    assert worse is not None
    assert worse.worse == pytest.approx(0.2)
    assert worse.is_alarm
    better = change(NUMBER, tally(50.0), tally(40.0))
    assert better is not None
    assert better.is_over


def test_one_mistyped_label_neither_raises_an_alarm_nor_hides_one() -> None:
    scores = np.random.default_rng(5).normal(0, 2.0, 400)
    shape = Shape((), most_error=20.0)

    def tally(scale: float, *, mistyped: bool) -> Tally:
        labels = scores + np.random.default_rng(6).normal(0, scale, 400)
        labels[0] = 1e9 if mistyped else labels[0]
        predictions = [{"value": float(v)} for v in scores]
        return tally_of(shape, Outcome(predictions, labels.tolist()))

    for scale, is_alarm in ((1.0, False), (2.0, True)):
        found = change(shape, tally(1.0, mistyped=False), tally(scale, mistyped=True))
        assert found is not None
        assert found.is_alarm is is_alarm


def test_the_largest_error_is_ten_times_the_spread_of_the_scores() -> None:
    manifest = SimpleNamespace(classes=None)
    deciles = np.quantile(np.random.default_rng(5).normal(3, 2.0, 100_000), np.arange(0.1, 1, 0.1))
    assert Shape.of(manifest, deciles.tolist()).most_error == pytest.approx(20.0, rel=0.02)
    for flat in ((), (0.0,)):
        assert Shape.of(manifest, flat).most_error == math.inf
