"""What a classifier's scores must be on the data it is registered with."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import ModelProto, TensorProto, helper, numpy_helper

from service.errors import InvalidInputError
from service.models.base import NativeModel, Served
from service.models.errors import ModelLoadError
from service.models.formats import artifact_of_model, load_model
from service.models.onnx import load_onnx
from service.registry import Registry
from service.registry.registering import register_version
from service.registry.work import Options, Source

X = pd.DataFrame(np.random.default_rng(0).uniform(0.5, 2.0, (40, 2)), columns=["a", "b"])
Y = (X["a"] > X["b"]).astype(int)


def graph(*operators: str) -> ModelProto:
    """Two columns through these operators, then turned round: the second class is `a`'s."""
    names = ["X", *(f"v{index}" for index in range(len(operators))), "Y"]
    nodes = [
        helper.make_node(operator, [given], [made])
        for operator, given, made in zip(operators, names, names[1:], strict=False)
    ]
    nodes.append(helper.make_node("Gather", [names[-2], "turn"], ["Y"], axis=1))
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ("rows", 2))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ("rows", 2))],
        [numpy_helper.from_array(np.array([1, 0]), "turn")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_probabilities_are_registered(tmp_path: Path) -> None:
    made = Registry(tmp_path).register("m", graph("Softmax"), X, Y)
    assert made.model.manifest.classes == (0, 1)


@pytest.mark.parametrize(
    "operators",
    [
        # A sigmoid each: one half each for a row of zeros, which add up.
        ["Sigmoid"],
        # The logarithm of a softmax, which is NaN for a row of zeros.
        ["Reciprocal", "LogSoftmax"],
    ],
)
def test_what_is_no_probability_is_refused(tmp_path: Path, operators: list[str]) -> None:
    with pytest.raises(InvalidInputError, match=r"in 40 of 40 rows .* such as .*sigmoid per class"):
        Registry(tmp_path).register("m", graph(*operators), X, Y)


def test_infinite_scores_are_refused_when_the_file_is_read() -> None:
    with pytest.raises(ModelLoadError, match="sum to one"):
        load_onnx(graph("Log").SerializeToString())


class Drawing:
    """A model whose numbers, by `method`, differ from call to call."""

    def __init__(self, native: NativeModel, method: str) -> None:
        self.native, self.method = native, method
        self.rng = np.random.default_rng(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.native, name)

    def predict(self, rows: np.ndarray) -> Served:
        served = self.native.predict(rows)
        moved = 1e-15 * self.rng.random(served.outputs.shape) * (self.method == "predict")
        return Served(served.outputs + moved, served.scores)

    def evaluate(self, rows: np.ndarray) -> np.ndarray:
        moved = 1e-15 * self.rng.random((len(rows), 1)) * (self.method == "evaluate")
        return self.native.evaluate(rows) + moved


@pytest.mark.parametrize("method", ["predict", "evaluate"])
def test_a_model_that_draws_at_random_is_refused(tmp_path: Path, method: str) -> None:
    artifact = artifact_of_model(graph("Softmax"))
    native = cast("NativeModel", Drawing(load_model(artifact, names=("a", "b")), method))
    layout = Registry(tmp_path).layout
    with pytest.raises(InvalidInputError, match="draws at random"):
        register_version(layout, "m", Source(artifact, native, X, Y), Options(), lambda _: None)
    assert layout.names() == []
