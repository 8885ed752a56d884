"""Standard errors are what they are called: how often, and how far, values lie beyond them."""

import os
from dataclasses import dataclass

import numpy as np
import pytest
from called_models import COLUMNS, SUBJECTS, Subject, naming_of

from explainers.base import Background, FloatArray
from explainers.sampled.enumeration import EnumerationExplainer
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

ROWS = 40
BACKGROUND_ROWS = 12
ROUNDING = 1e-12
SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
LEAST, MOST = 0.92, 0.97
FAR = 5.0
LARGEST_Z = 6.0


@dataclass(frozen=True)
class Scores:
    """Estimates less exact values, over their standard errors, wherever there is a difference."""

    z: FloatArray

    def coverage(self, scale: float = 1.0) -> float:
        """Share of values within 1.96 standard errors that are `scale` times those given."""
        return float(np.mean(np.abs(self.z) <= 1.96 * scale))

    def are_honest(self, scale: float = 1.0) -> bool:
        """In 5,000 values and more one in 5,000 may lie far off: the tails are not normal."""
        far = int(np.sum(np.abs(self.z) >= FAR * scale))
        return LEAST <= self.coverage(scale) <= MOST and far <= len(self.z) // 5000


def scores_of(
    subject: Subject,
    config: PermutationConfig,
    seed: int,
    *,
    background_rows: int = BACKGROUND_ROWS,
    n_rows: int = ROWS,
) -> Scores:
    rng = np.random.default_rng(seed)
    background = Background.of(subject.rows(background_rows, rng))
    X = subject.rows(n_rows, rng)
    naming = naming_of(COLUMNS, subject.n_outputs)
    exact = EnumerationExplainer(subject.model, background, naming=naming, tolerance=1e-9)
    sampled = PermutationExplainer(
        subject.model, background, naming=naming, tolerance=1e-9, config=config
    ).explain(X, seeds=rng.integers(1 << 53, size=n_rows))
    assert sampled.standard_errors is not None
    gaps = sampled.values - exact.explain(X).values
    differ = np.abs(gaps) > ROUNDING
    assert not np.any(sampled.standard_errors[differ] == 0)
    return Scores(gaps[differ] / sampled.standard_errors[differ])


CONFIGS = {
    "one size": PermutationConfig(passes=16, target=1.0, rows_per_call=512),
    "stopped when near enough": PermutationConfig(
        target=0.005, budget_rows=40_000, rows_per_call=512
    ),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def scores(request: pytest.FixtureRequest) -> dict[str, Scores]:
    return {
        name: scores_of(subject, request.param, seed)
        for seed, (name, subject) in enumerate(SUBJECTS.items())
    }


def test_values_lie_as_far_off_as_their_standard_errors_say(scores: dict[str, Scores]) -> None:
    together = Scores(np.concatenate([found.z for found in scores.values()]))
    for name, found in scores.items():
        print(f"{name}: {len(found.z)}, {found.coverage():.4f}, {np.abs(found.z).max():.2f}")
    print(f"together: {len(together.z)}, {together.coverage():.4f}")
    assert len(together.z) >= 2000
    assert together.are_honest()
    assert abs(together.z.mean()) < 0.1


@pytest.mark.parametrize("scale", [0.7, 1.5])
def test_standard_errors_too_small_or_too_large_are_found_out(
    scores: dict[str, Scores], scale: float
) -> None:
    together = Scores(np.concatenate([found.z for found in scores.values()]))
    assert not together.are_honest(scale)


@pytest.mark.parametrize("background_rows", [pytest.param(1, marks=pytest.mark.drill), 20])
def test_a_jump_that_the_first_orders_miss_has_an_error_that_covers_it(
    background_rows: int,
) -> None:
    """1000 where five columns alone are taken from the row: one coalition of 252 of that size."""
    rng = np.random.default_rng(0)
    background = Background.of(-1 - rng.random((background_rows, COLUMNS)))
    X, naming = np.ones((40, COLUMNS)), naming_of(COLUMNS)

    def model(rows: FloatArray) -> FloatArray:
        is_there = np.all(rows[:, :5] > 0, axis=1) & np.all(rows[:, 5:] < 0, axis=1)
        return 1000.0 * is_there[:, None]

    exact = EnumerationExplainer(model, background, naming=naming, tolerance=1e-9).explain(X[:1])
    sampled = PermutationExplainer(
        model,
        background,
        naming=naming,
        tolerance=1e-9,
        config=PermutationConfig(rows_per_call=512, budget_rows=300_000),
    ).explain(X, seeds=rng.integers(1 << 53, size=len(X)))
    assert np.abs(exact.values).min() > 0.5
    assert sampled.standard_errors is not None
    assert sampled.standard_errors.min() > 0
    found = Scores(((sampled.values - exact.values) / sampled.standard_errors).ravel())
    print(f"{len(found.z)}, {found.coverage():.4f}, {np.abs(found.z).max():.2f}")
    # So few jumps are met that errors are skewed: they cover less, and one z is 5.03.
    assert found.coverage() >= 0.85
    assert np.abs(found.z).max() < LARGEST_Z


@pytest.mark.drill
@pytest.mark.parametrize(
    ("background_rows", "target"),
    [(2, 0.005), (5, 0.01), (12, 0.003), (12, 1.0), (40, 0.005), (100, 0.005)],
)
def test_defaults_are_honest_with_backgrounds_of_every_size(
    background_rows: int, target: float
) -> None:
    config = PermutationConfig(target=target, rows_per_call=512, budget_rows=60_000)
    n_rows = max(30, int(100 * SCALE))
    together = Scores(
        np.concatenate(
            [
                scores_of(
                    subject,
                    config,
                    100 + seed,
                    background_rows=background_rows,
                    n_rows=n_rows,
                ).z
                for seed, subject in enumerate(SUBJECTS.values())
            ]
        )
    )
    print(f"{len(together.z)}, {together.coverage():.4f}, {np.abs(together.z).max():.2f}")
    assert len(together.z) >= 2000
    assert together.are_honest()
    assert not together.are_honest(0.7)
    assert not together.are_honest(1.5)
