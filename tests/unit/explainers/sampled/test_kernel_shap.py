import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from called_models import COLUMNS, SUBJECTS, Subject, naming_of, normal_rows

from explainers.base import Background, FloatArray, UnsupportedModelError
from explainers.sampled.enumeration import EnumerationExplainer
from explainers.sampled.kernel_shap import KernelConfig, KernelExplainer

CONFIG = KernelConfig(replicates=8, coalitions=200, rows_per_call=256)
SUBJECT = SUBJECTS["three classes"]
RNG_SEED = 3


def rows(n: int, seed: int = RNG_SEED) -> FloatArray:
    return normal_rows(n, np.random.default_rng(seed))


def kernel(subject: Subject = SUBJECT, config: KernelConfig = CONFIG) -> KernelExplainer:
    return KernelExplainer(
        subject.model,
        Background.of(rows(6)),
        naming=naming_of(COLUMNS, subject.n_outputs),
        tolerance=1e-9,
        config=config,
    )


def exact(subject: Subject, X: FloatArray) -> FloatArray:
    return (
        EnumerationExplainer(
            subject.model,
            Background.of(rows(6)),
            naming=naming_of(COLUMNS, subject.n_outputs),
            tolerance=1e-9,
        )
        .explain(X)
        .values
    )


def test_values_add_up_and_are_as_near_as_the_replicates_say() -> None:
    X = rows(20, 1)
    explainer = kernel()
    found = explainer.explain(X, seeds=np.arange(20) + (1 << 40))
    assert (found.method, found.engine, found.exact) == ("kernel", "sampler", False)
    total = found.base_values + found.values.sum(axis=1)
    np.testing.assert_allclose(total, explainer.outputs(X), rtol=0, atol=1e-9)
    assert found.standard_errors is not None
    z = (found.values - exact(SUBJECT, X)) / found.standard_errors
    assert 0.88 < np.mean(np.abs(z) <= 1.96) < 0.99
    assert not 0.88 < np.mean(np.abs(z) <= 1.96 / 2) < 0.99
    assert not 0.88 < np.mean(np.abs(z) <= 1.96 * 3) < 0.99


def test_with_all_coalitions_it_is_exact() -> None:
    X = rows(2, 1)
    found = kernel(config=KernelConfig(replicates=2, coalitions=1 << COLUMNS)).explain(X)
    np.testing.assert_allclose(found.values, exact(SUBJECT, X), rtol=0, atol=1e-9)
    assert found.standard_errors is not None
    assert found.standard_errors.max() < 1e-9


def test_replay_gives_the_same_bytes_and_leaves_the_global_generator_as_it_was() -> None:
    X, seeds = rows(3, 1), np.array([5, 5 + (1 << 32), 7])
    explainer = kernel(config=KernelConfig(replicates=2, coalitions=100, rows_per_call=256))
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002 (what shap draws from)
    first = explainer.explain(X, seeds=seeds)
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002
    again = explainer.explain(X, seeds=seeds)
    assert first.values.tobytes() == again.values.tobytes()
    one = explainer.explain(X[1:2], seeds=seeds[1:2])
    assert one.values.tobytes() == first.values[1:2].tobytes()
    same_row = explainer.explain(X[[0, 0]], seeds=seeds[:2]).values
    assert not np.array_equal(same_row[0], same_row[1])


def test_one_explainer_shared_by_threads_gives_the_serial_answers() -> None:
    X, seeds = rows(8, 1), np.arange(8)
    explainer = kernel(config=KernelConfig(replicates=2, coalitions=100, rows_per_call=256))
    serial = explainer.explain(X, seeds=seeds).values
    start = threading.Barrier(8)

    def explain(i: int) -> FloatArray:
        start.wait()
        return explainer.explain(X[i : i + 1], seeds=seeds[i : i + 1]).values

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(explain, range(8)))
    assert np.concatenate(found).tobytes() == serial.tobytes()


def test_evaluations_are_counted_as_the_model_counts_them() -> None:
    seen = []

    def model(X: FloatArray) -> FloatArray:
        seen.append(len(X))
        return SUBJECT.model(X)

    explainer = kernel(Subject(model, normal_rows, 3))
    seen.clear()
    assert explainer.explain(rows(1, 1)).model_evaluations == sum(seen)
    assert set(seen) == {256}


def test_another_background_is_explained_against() -> None:
    explainer, X = kernel(), rows(1, 1)
    other = explainer.against(Background.of(rows(4, 9)))
    found = other.explain(X)
    assert found.background_digest != explainer.explain(X).background_digest
    np.testing.assert_allclose(found.base_values[0], SUBJECT.model(rows(4, 9)).mean(axis=0))
    np.testing.assert_allclose(other.output_scale, SUBJECT.model(rows(4, 9)).std(axis=0))


def test_a_linear_model_of_many_columns_has_its_values() -> None:
    rng = np.random.default_rng(0)
    weights, background, x = (rng.normal(size=(n, 300)) for n in (1, 4, 1))
    explainer = KernelExplainer(
        lambda X: np.asarray(X @ weights.T),
        Background.of(background),
        naming=naming_of(300),
        tolerance=1e-9,
        config=KernelConfig(replicates=2),
    )
    found, expected = explainer.explain(x), (x - background.mean(axis=0)) * weights
    np.testing.assert_allclose(found.values[0, :, 0], expected[0], atol=1e-6)
    assert found.model_evaluations <= explainer.config.model_rows(300, 4)


def test_rows_that_take_too_much_memory_at_once_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="1495 MiB at once"):
        KernelConfig().model_rows(700, 100)
    with pytest.raises(UnsupportedModelError, match="MiB at once"):
        KernelExplainer(
            SUBJECT.model,
            Background.of(np.zeros((1, 5000))),
            naming=naming_of(5000),
            tolerance=1e-9,
        )


def test_what_it_does_not_do_is_refused() -> None:
    explainer = kernel()
    explainer.warm_up()
    assert explainer.stored_tables() is None
    with pytest.raises(UnsupportedModelError, match="no interactions"):
        explainer.interactions(rows(1))
    for options in ({"replicates": 1}, {"coalitions": 0}, {"rows_per_call": 0}):
        with pytest.raises(ValueError, match="two replicates at least"):
            KernelConfig(**options)
