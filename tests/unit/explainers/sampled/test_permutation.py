import numpy as np
import pytest
from called_models import COLUMNS, SUBJECTS, Subject, naming_of, network, normal_rows

from explainers.base import Background, FloatArray, UnsupportedModelError
from explainers.exact import interventional_values
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer, Stage

ROWS_PER_CALL = 256


def explainer_of(
    subject: Subject, background: FloatArray, config: PermutationConfig
) -> PermutationExplainer:
    return PermutationExplainer(
        subject.model,
        Background.of(background),
        naming=naming_of(COLUMNS, subject.n_outputs),
        tolerance=1e-9,
        config=config,
    )


def test_stops_are_planned_by_the_configuration_alone() -> None:
    config = PermutationConfig(passes=4, budget_rows=10_000, rows_per_call=100)
    assert config.stages(11, 10) == (
        Stage(4, 900),
        Stage(8, 1700),
        Stage(16, 3300),
        Stage(32, 6500),
    )
    assert config.stages(11, 5)[0] == Stage(8, 900)
    assert config.stages(11, 1)[:2] == (Stage(32, 800), Stage(64, 1500))
    assert config.stages(1, 5) == (Stage(8, 100),)
    assert config.stages(500, 500) == ()


@pytest.mark.parametrize(
    ("target", "passes"), [(1.0, 4), (0.0, 32)], ids=["reached at once", "never reached"]
)
def test_passes_are_doubled_until_the_target_or_the_budget(target: float, passes: int) -> None:
    config = PermutationConfig(passes=4, target=target, budget_rows=6000, rows_per_call=64)
    rng = np.random.default_rng(0)
    explainer = explainer_of(SUBJECTS["network"], normal_rows(8, rng), config)
    stages = {stage.passes: stage.model_rows for stage in config.stages(COLUMNS, 8)}
    assert max(stages) == 32
    assert explainer.explain(normal_rows(1, rng)).model_evaluations == stages[passes]
    assert explainer.cost(2) == (2 * stages[4], 2 * stages[32])


def test_more_passes_go_on_where_fewer_ended() -> None:
    rng = np.random.default_rng(0)
    background, x = normal_rows(8, rng), normal_rows(1, rng)
    four, eight, doubled = (
        explainer_of(SUBJECTS["network"], background, config).explain(x).values
        for config in (
            PermutationConfig(passes=4, target=1.0),
            PermutationConfig(passes=8, target=1.0),
            PermutationConfig(passes=4, target=0.0, budget_rows=4096),
        )
    )
    np.testing.assert_allclose(doubled, eight, rtol=0, atol=1e-12)
    assert not np.allclose(four, eight, rtol=0, atol=1e-9)


def test_the_standard_error_falls_as_the_root_of_the_passes() -> None:
    rng = np.random.default_rng(0)
    background, X = normal_rows(8, rng), normal_rows(20, rng)
    errors = []
    for passes in (16, 64):
        config = PermutationConfig(passes=passes, target=1.0)
        explanation = explainer_of(SUBJECTS["forest"], background, config).explain(X)
        assert explanation.standard_errors is not None
        errors.append(np.sqrt(np.mean(explanation.standard_errors**2)))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_a_background_beyond_the_budget_is_refused_at_once() -> None:
    rows = np.zeros((1000, COLUMNS))
    with pytest.raises(UnsupportedModelError, match="8 passes over 1000 background rows"):
        explainer_of(SUBJECTS["network"], rows, PermutationConfig(budget_rows=100_000))


@pytest.mark.parametrize(
    "options",
    [{"passes": 1}, {"target": -0.1}, {"budget_rows": 0}, {"rows_per_call": 0}],
)
def test_a_configuration_without_sense_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"no standard error from 1|from 1, target from 0"):
        PermutationConfig(**options)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([1, 2], "1 rows need as many seeds"), ([-1], "below 2"), ([1 << 53], "below 2")],
)
def test_seeds_that_are_none_are_refused(seeds: list[int], message: str) -> None:
    explainer = explainer_of(SUBJECTS["network"], np.zeros((2, COLUMNS)), PermutationConfig())
    with pytest.raises(ValueError, match=message):
        explainer.explain(np.ones((1, COLUMNS)), seeds=np.array(seeds))


def test_columns_the_model_treats_alike_are_expected_to_share_alike() -> None:
    one = network(COLUMNS - 1, seed=3)

    def model(X: FloatArray) -> FloatArray:
        return one(np.hstack([X[:, :1] + X[:, 1:2], X[:, 2:]]))

    rng = np.random.default_rng(0)
    background, x = normal_rows(8, rng), normal_rows(1, rng)
    background[:, 1], x[:, 1] = background[:, 0], x[:, 0]
    config = PermutationConfig(passes=256, target=1.0, rows_per_call=ROWS_PER_CALL)
    explanation = explainer_of(Subject(model, normal_rows), background, config).explain(x)
    assert explanation.standard_errors is not None
    first, second = explanation.values[0, :2, 0]
    assert first != second
    assert abs(first - second) < 4 * np.hypot(*explanation.standard_errors[0, :2, 0])
    exact = interventional_values(model, x[0], background)
    np.testing.assert_allclose([first, second], exact[:2, 0], rtol=0.01)
