import numpy as np
import pytest
from called_models import naming_of, network

from explainers import base
from explainers.base import Background, ExplainerError, ResultTooLargeError, TooManyColumnsError
from explainers.sampled.enumeration import EnumerationExplainer, enumeration_rows


def explainer_of(n_columns: int) -> EnumerationExplainer:
    return EnumerationExplainer(
        network(n_columns),
        Background.of(np.zeros((2, n_columns))),
        naming=naming_of(n_columns),
        tolerance=1e-9,
        rows_per_call=64,
    )


def test_more_than_twelve_varying_columns_are_refused_before_the_model_is_called() -> None:
    explainer = explainer_of(13)
    x = np.ones((1, 13))
    for call in (explainer.explain, explainer.interactions):
        with pytest.raises(TooManyColumnsError, match="13 columns: all coalitions of at most 12"):
            call(x)
    x[0, 0] = 0.0
    assert explainer.explain(x).values[0, 0, 0] == 0.0
    assert issubclass(TooManyColumnsError, ExplainerError)


def test_interactions_of_columns_that_do_not_vary_are_zero() -> None:
    explainer = explainer_of(13)
    x = np.ones((1, 13))
    x[0, 4:] = 0.0
    found = explainer.interactions(x)
    assert found.explanation.values.tobytes() == explainer.explain(x).values.tobytes()
    assert np.all(found.values[0, 4:] == 0)
    assert np.abs(found.values[0, :4, :4]).min() > 0


def test_interactions_beyond_the_memory_allowed_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "PAIR_BYTES", 8 * 4 * 4)
    assert len(explainer_of(4).interactions(np.ones((1, 4))).values) == 1
    with pytest.raises(ResultTooLargeError, match="at most 1 rows at once, not 2"):
        explainer_of(4).interactions(np.ones((2, 4)))


@pytest.mark.parametrize(
    ("n_columns", "n_background_rows"), [(1, 1), (4, 7), (12, 2), (12, 100), (3, 70_000)]
)
def test_what_a_row_costs_is_known_before(n_columns: int, n_background_rows: int) -> None:
    background = np.random.default_rng(0).normal(size=(n_background_rows, n_columns))
    explainer = EnumerationExplainer(
        lambda X: X[:, :1],
        Background.of(background),
        naming=naming_of(n_columns),
        tolerance=1e-9,
    )
    expected = enumeration_rows(n_columns, n_background_rows, 1024)
    assert explainer.explain(np.full((1, n_columns), 9.0)).model_evaluations == expected
    assert expected >= (1 << n_columns) * n_background_rows
    assert explainer.cost(3) == 3 * expected
