"""What the Python client makes of an explanation: shap's and pandas' own."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from schemas import ExplanationBody
from service.client import Explanation, NoValuesError

COLUMNS = ["age", "income", "site"]
ROWS = [{"age": 33, "income": None, "site": "left"}, {"age": 41, "income": 2.5, "site": None}]
RNG = np.random.default_rng(5)


def explained(names: list[str], **changes: Any) -> Explanation:
    values = RNG.normal(size=(len(ROWS), len(COLUMNS), len(names)))
    base_values = RNG.normal(size=(len(ROWS), len(names)))
    body: dict[str, Any] = {
        "status": "complete",
        "reason": None,
        "lane": "queued",
        "method": "permutation",
        "engine": "sampler",
        "exact": False,
        "output_space": "margin",
        "link": "softmax",
        "output_names": names,
        "feature_names": COLUMNS,
        "values": values.tolist(),
        "base_values": base_values.tolist(),
        "outputs": (base_values + values.sum(axis=1)).tolist(),
        "standard_errors": abs(values / 10).tolist(),
        "additivity_error": [0.0, 0.0],
        "top": [[], []],
        "background_digest": "sha256:00",
        "seed": [1, 2],
        "model_evaluations": 7,
        "duration_seconds": 0.5,
        "caveat": "no causes",
        "links": {"self": "/explanations/some-request"},
    }
    return Explanation(ExplanationBody.model_validate(body | changes), ROWS)


def test_one_output_becomes_a_matrix() -> None:
    explanation = explained(["bad"])
    found = explanation.to_shap()
    assert found.values.tolist() == np.array(explanation.values)[..., 0].tolist()
    assert found.base_values.tolist() == [base for (base,) in explanation.base_values]
    assert (found.values.shape, found.base_values.shape) == ((2, 3), (2,))
    assert (found.feature_names, found.output_names) == (COLUMNS, "bad")
    assert found.data.tolist() == [[33, None, "left"], [41, 2.5, None]]
    assert found.error_std.tolist() == np.array(explanation.body.standard_errors)[..., 0].tolist()
    assert found[1].base_values == explanation.base_values[1][0]
    assert found[:, "income"].values.tolist() == found.values[:, 1].tolist()


@pytest.mark.parametrize("outputs", [["low", "high"], ["low", "middle", "high"]])
def test_several_outputs_stay_apart_and_are_taken_out_by_name(outputs: list[str]) -> None:
    explanation = explained(outputs)
    found = explanation.to_shap()
    values, base_values = np.array(explanation.values), np.array(explanation.base_values)
    assert found.values.tolist() == values.tolist()
    assert found.base_values.tolist() == base_values.tolist()
    assert found.output_names == outputs
    for k, output in enumerate(outputs):
        assert found[:, :, output].values.tolist() == values[..., k].tolist()
        assert found[:, :, output].base_values.tolist() == base_values[..., k].tolist()
    assert found[0, "age"].values.tolist() == values[0, 0].tolist()


def test_cells_of_numbers_are_numbers() -> None:
    numbers = [{**row, "site": 1} for row in ROWS]
    data = Explanation(explained(["bad"]).body, numbers).to_shap().data
    assert data.dtype == np.float64
    assert np.isnan(data[0, 1])
    erased = Explanation(explained(["bad"]).body, [numbers[0], None]).to_shap().data
    assert np.isnan(erased[1]).all()


@pytest.mark.parametrize("outputs", [["bad"], ["low", "middle", "high"]])
def test_shap_draws_it(outputs: list[str]) -> None:
    mpl.use("Agg")
    import shap
    from matplotlib import pyplot as plt

    found = explained(outputs).to_shap()
    one = found[0] if len(outputs) == 1 else found[0, :, outputs[1]]
    try:
        axes = shap.plots.waterfall(one, show=False)
        drawn = " ".join(label.get_text() for label in axes.get_yticklabels())
    finally:
        plt.close("all")
    assert all(name in drawn for name in COLUMNS)


def test_a_frame_has_a_row_for_each_contribution() -> None:
    explanation = explained(["low", "high"])
    frame = explanation.to_frame()
    assert len(frame) == 2 * 3 * 2
    sums = frame.groupby(["instance", "output"], sort=False)["contribution"].sum().to_numpy()
    outputs = np.array(explanation.body.outputs) - np.array(explanation.base_values)
    assert np.allclose(sums, outputs.ravel())
    first = frame.iloc[0]
    assert (first["feature"], first["value"], first["output"]) == ("age", 33, "low")
    assert first["standard_error"] == pytest.approx(abs(first["contribution"]) / 10)
    exact = explained(["low"], standard_errors=None, exact=True, seed=None, engine="walk")
    assert "standard_error" not in exact.to_frame().columns


COMPUTED = "values base_values outputs standard_errors additivity_error top seed engine exact"
NOTHING: dict[str, Any] = dict.fromkeys(COMPUTED.split())
NO_VALUES = {
    "pending": ({"status": "pending"}, "pending"),
    "failed": ({"status": "failed", "reason": "worker lost"}, "worker lost"),
    "another method": (
        {
            "method": "lime",
            "local_model": {
                "coefficients": [],
                "intercept": [],
                "r2": [],
                "samples": 1,
                "kernel_width": 1.0,
                "ridge": 1.0,
            },
        },
        "lime",
    ),
    "withheld": ({"visible": [[], []]}, "role"),
}


@pytest.mark.parametrize("case", NO_VALUES)
def test_what_has_no_values_says_why(case: str) -> None:
    changes, told = NO_VALUES[case]
    explanation = explained(["bad"], **NOTHING, **changes)
    for ask in (
        explanation.to_shap,
        explanation.to_frame,
        lambda: explanation.base_values,
        lambda: explanation.top,
    ):
        with pytest.raises(NoValuesError, match=told):
            ask()
