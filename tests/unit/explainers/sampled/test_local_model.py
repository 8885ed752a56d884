import numpy as np
import pytest
from called_models import COLUMNS, SUBJECTS, classifier, naming_of, normal_rows
from sklearn.linear_model import Ridge

from explainers.base import Background, FloatArray
from explainers.sampled.local_model import LocalModel, LocalModelConfig, explain_locally
from explainers.sampled.walks import differing

BACKGROUND = normal_rows(7, np.random.default_rng(0))
CONFIG = LocalModelConfig(samples=700, rows_per_call=256)


def called(
    X: FloatArray,
    seeds: FloatArray | None = None,
    config: LocalModelConfig = CONFIG,
    background: FloatArray = BACKGROUND,
) -> LocalModel:
    return explain_locally(
        classifier(COLUMNS, 3),
        Background.of(background),
        X,
        naming=naming_of(COLUMNS, 3),
        seeds=seeds,
        config=config,
    )


def linear(X: FloatArray) -> FloatArray:
    """Columns count for 2, -1 and 0; lime's regression mode gives such weights negated."""
    return np.asarray(X[:, :3] @ np.array([[2.0], [-1.0], [0.0]]) + 5)


def test_signs_and_sizes_are_those_of_a_linear_model() -> None:
    x, background = np.array([[3.0, 3.0, 3.0]]), np.zeros((1, 3))
    found = explain_locally(
        linear,
        Background.of(background),
        x,
        naming=naming_of(3),
        config=LocalModelConfig(samples=4000, ridge=1e-6),
    )
    np.testing.assert_allclose(found.coefficients[0, :, 0], [6.0, -3.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(found.intercept, [[5.0]], atol=1e-6)
    np.testing.assert_allclose(found.r2, 1.0, atol=1e-9)


def test_the_fit_is_the_weighted_ridge_of_the_samples() -> None:
    seen: list[FloatArray] = []
    model = classifier(COLUMNS, 3)

    def recorded(X: FloatArray) -> FloatArray:
        seen.append(X)
        return model(X)

    x = normal_rows(1, np.random.default_rng(1))
    found = explain_locally(
        recorded, Background.of(BACKGROUND), x, naming=naming_of(COLUMNS, 3), config=CONFIG
    )
    hybrids = np.concatenate(seen[1:])[: CONFIG.samples]
    assert np.array_equal(hybrids[0], x[0])
    described = ~differing(x[0], hybrids)
    changed = (~described).sum(axis=1)
    assert set(changed[1:]) == set(range(1, COLUMNS + 1))
    width = 0.75 * np.sqrt(COLUMNS)
    weights = np.sqrt(np.exp(-changed / width**2))
    ridge = Ridge(alpha=1.0).fit(described, model(hybrids), sample_weight=weights)
    np.testing.assert_allclose(found.coefficients[0], ridge.coef_.T, atol=1e-10)
    np.testing.assert_allclose(found.intercept[0], ridge.intercept_, atol=1e-10)
    for output in range(3):
        fitted = Ridge(alpha=1.0).fit(described, model(hybrids)[:, output], sample_weight=weights)
        score = fitted.score(described, model(hybrids)[:, output], sample_weight=weights)
        np.testing.assert_allclose(found.r2[0, output], score, atol=1e-10)
    assert 0.2 < found.r2.min() < found.r2.max() < 0.99


def test_cells_are_the_rows_or_a_background_rows_used_equally_often() -> None:
    seen: list[FloatArray] = []

    def recorded(X: FloatArray) -> FloatArray:
        seen.append(X)
        return SUBJECTS["network"].model(X)

    x = normal_rows(1, np.random.default_rng(1))
    explain_locally(
        recorded, Background.of(BACKGROUND), x, naming=naming_of(COLUMNS), config=CONFIG
    )
    hybrids = np.concatenate(seen[1:])[: CONFIG.samples]
    for i, hybrid in enumerate(hybrids):
        assert np.all((hybrid == x[0]) | (hybrid == BACKGROUND[i % 7]))


def test_a_row_has_the_same_bytes_alone_in_a_batch_and_again() -> None:
    X, seeds = normal_rows(4, np.random.default_rng(1)), np.arange(4) + 9
    batch = called(X, seeds)
    assert called(X, seeds).coefficients.tobytes() == batch.coefficients.tobytes()
    for i in range(4):
        alone = called(X[i : i + 1], seeds[i : i + 1])
        assert alone.coefficients.tobytes() == batch.coefficients[i : i + 1].tobytes()
        assert alone.r2.tobytes() == batch.r2[i : i + 1].tobytes()
    assert not np.allclose(called(X, seeds + 1).coefficients, batch.coefficients, atol=1e-6)
    assert batch.seeds.tolist() == seeds.tolist()
    assert batch.model_evaluations == 4 * 768
    assert batch.background_digest == Background.of(BACKGROUND).digest


def test_columns_equal_everywhere_count_for_nothing() -> None:
    background, x = BACKGROUND.copy(), normal_rows(1, np.random.default_rng(1))
    background[:, 2] = x[0, 2]
    found = called(x, background=background)
    assert np.all(found.coefficients[0, 2] == 0)
    assert np.abs(np.delete(found.coefficients[0], 2, axis=0)).min() > 0
    same = called(x, background=x)
    assert np.all(same.coefficients == 0)
    assert np.all(same.r2 == 1)
    assert called(x[:0]).coefficients.shape == (0, COLUMNS, 3)


@pytest.mark.parametrize(
    "options", [{"samples": 1}, {"rows_per_call": 0}, {"kernel_width": 0}, {"ridge": 0}]
)
def test_a_configuration_without_sense_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"two samples|above 0"):
        LocalModelConfig(**options)
