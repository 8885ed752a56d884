"""Interactions estimated: the right ones, as far off as their standard errors say."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from called_models import COLUMNS, SUBJECTS, Subject, classifier, naming_of, normal_rows

from explainers import base
from explainers.base import (
    Background,
    FloatArray,
    Interactions,
    ResultTooLargeError,
    UnsupportedModelError,
)
from explainers.exact import interventional_interactions
from explainers.sampled.enumeration import EnumerationExplainer
from explainers.sampled.pairs import _zigzags
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

ROWS = 8
BACKGROUND_ROWS = 40
UPPER = np.triu_indices(COLUMNS)


def sampler(
    subject: Subject, background: FloatArray, config: PermutationConfig | None = None
) -> PermutationExplainer:
    return PermutationExplainer(
        subject.model,
        Background.of(background),
        naming=naming_of(background.shape[1], subject.n_outputs),
        tolerance=1e-9,
        config=config,
    )


def errors_of(found: Interactions) -> FloatArray:
    assert found.standard_errors is not None
    return found.standard_errors


@pytest.mark.parametrize("n", [2, 4, 6, 12])
def test_every_two_places_are_neighbours_in_one_zigzag(n: int) -> None:
    orders = _zigzags(n)
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(n), (n // 2, 1)))
    met = {frozenset(pair) for order in orders for pair in pairwise(order)}
    assert len(met) == n * (n - 1) // 2


@dataclass(frozen=True)
class Scores:
    z: FloatArray

    def are_honest(self, scale: float = 1.0) -> bool:
        coverage = float(np.mean(np.abs(self.z) <= 1.96 * scale))
        return 0.92 <= coverage <= 0.98 and float(np.abs(self.z).max() / scale) < 5


@pytest.fixture(scope="module")
def scores() -> Scores:
    together = []
    for seed, subject in enumerate(SUBJECTS.values()):
        rng = np.random.default_rng(seed)
        background, X = subject.rows(BACKGROUND_ROWS, rng), subject.rows(ROWS, rng)
        exact = EnumerationExplainer(
            subject.model,
            Background.of(background),
            naming=naming_of(COLUMNS, subject.n_outputs),
            tolerance=1e-9,
        ).interactions(X)
        found = sampler(subject, background).interactions(X, seeds=rng.integers(1 << 53, size=ROWS))
        gaps = (found.values - exact.values)[:, UPPER[0], UPPER[1]]
        differ = np.abs(gaps) > 1e-12
        together.append(gaps[differ] / errors_of(found)[:, UPPER[0], UPPER[1]][differ])
    return Scores(np.concatenate(together))


def test_interactions_lie_as_far_off_as_their_standard_errors_say(scores: Scores) -> None:
    print(f"{len(scores.z)}, {np.mean(np.abs(scores.z) <= 1.96):.4f}, {np.abs(scores.z).max():.2f}")
    assert len(scores.z) >= 2000
    assert scores.are_honest()
    assert abs(scores.z.mean()) < 0.1


@pytest.mark.parametrize("scale", [0.7, 1.5])
def test_standard_errors_too_small_or_too_large_are_found_out(scores: Scores, scale: float) -> None:
    assert not scores.are_honest(scale)


@pytest.mark.parametrize("n_columns", [1, 2, 3])
def test_of_up_to_three_columns_pairs_are_exact(n_columns: int) -> None:
    def model(X: FloatArray) -> FloatArray:
        return np.stack([X.prod(axis=1) + X.sum(axis=1), np.tanh(X.sum(axis=1))], axis=1)

    rng = np.random.default_rng(0)
    background, x = rng.normal(size=(4, n_columns)), rng.normal(size=n_columns)
    found = sampler(Subject(model, normal_rows, 2), background).interactions(x[None])
    expected = interventional_interactions(model, x, background)
    apart = ~np.eye(n_columns, dtype=np.bool_)
    np.testing.assert_allclose(found.values[0][apart], expected[apart], rtol=0, atol=1e-12)
    assert errors_of(found)[0][apart].max(initial=0) < 1e-12
    if n_columns < 3:
        np.testing.assert_allclose(found.values[0], expected, rtol=0, atol=1e-12)


def test_rows_sum_to_the_values_of_the_same_draws_and_these_to_the_output() -> None:
    subject = SUBJECTS["three classes"]
    rng = np.random.default_rng(0)
    explainer, X = sampler(subject, normal_rows(6, rng)), normal_rows(3, rng)
    found = explainer.interactions(X)
    np.testing.assert_allclose(
        found.values.sum(axis=2), found.explanation.values, rtol=0, atol=1e-12
    )
    assert np.array_equal(found.values, found.values.transpose(0, 2, 1, 3))
    total = found.explanation.base_values + found.explanation.values.sum(axis=1)
    np.testing.assert_allclose(total, subject.model(X), rtol=0, atol=1e-12)
    values = explainer.explain(X)
    assert values.standard_errors is not None
    assert found.explanation.standard_errors is not None
    apart = np.abs(values.values - found.explanation.values)
    assert np.all(apart < 5 * np.hypot(values.standard_errors, found.explanation.standard_errors))


def test_columns_equal_everywhere_and_rows_of_the_background_interact_with_none() -> None:
    rng = np.random.default_rng(0)
    background, X = normal_rows(6, rng), normal_rows(2, rng)
    background[:, 4] = X[:, 4] = 1.0
    background[0, 5] = X[0, 5]
    found = sampler(SUBJECTS["three classes"], background).interactions(X)
    for array in (found.values, errors_of(found)):
        assert np.all(array[:, 4] == 0)
        assert np.all(array[:, :, 4] == 0)
        assert np.abs(array[:, 0, [0, 1, 2, 3, 5]]).min() > 0
    alone = sampler(SUBJECTS["three classes"], X[:1]).interactions(X[:1])
    assert np.all(alone.values == 0)
    assert alone.explanation.model_evaluations == 0


def test_a_row_has_the_same_bytes_alone_in_a_batch_and_again_whatever_is_called_beside_it() -> None:
    def blurred(X: FloatArray) -> FloatArray:
        return classifier(COLUMNS, 3)(X) + 1e-3 * len(X) + 1e-3 * X.sum()

    rng = np.random.default_rng(0)
    explainer = sampler(Subject(blurred, normal_rows, 3), normal_rows(4, rng))
    X, seeds = normal_rows(3, rng), np.array([4, 5, 6])
    batch = explainer.interactions(X, seeds=seeds)
    assert explainer.interactions(X, seeds=seeds).values.tobytes() == batch.values.tobytes()
    for i in range(3):
        alone = explainer.interactions(X[i : i + 1], seeds=seeds[i : i + 1])
        assert alone.values.tobytes() == batch.values[i : i + 1].tobytes()
        assert errors_of(alone).tobytes() == errors_of(batch)[i : i + 1].tobytes()
    assert not np.allclose(explainer.interactions(X).values, batch.values, rtol=0, atol=1e-6)


def test_what_is_too_much_is_refused_before_the_model_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    calls: list[int] = []

    def counted(X: FloatArray) -> FloatArray:
        calls.append(len(X))
        return SUBJECTS["network"].model(X)

    config = PermutationConfig(budget_rows=8192, rows_per_call=512)
    explainer = sampler(Subject(counted, normal_rows), normal_rows(8, rng), config)
    X = normal_rows(2, rng)
    X[0] = 0.0
    calls.clear()
    with pytest.raises(UnsupportedModelError, match="10 varying columns take 11776 model rows"):
        explainer.interactions(X)
    monkeypatch.setattr(base, "PAIR_BYTES", 8 * COLUMNS * COLUMNS)
    with pytest.raises(ResultTooLargeError, match="at most 1 rows at once, not 2"):
        explainer.interactions(X)
    assert calls == []
