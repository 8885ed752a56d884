"""ONNX Dropout, which draws at random where its third input says so."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper

from service.models.errors import ModelLoadError
from service.models.onnx import load_onnx

RATIO = numpy_helper.from_array(np.float32(0.5), "ratio")
OFF = numpy_helper.from_array(np.zeros((), np.bool_), "switch")
ON = numpy_helper.from_array(np.ones((), np.bool_), "switch")
SPELT = helper.make_tensor("switch", TensorProto.BOOL, (), [False])


def dropping(
    tensors: Sequence[Any], before: Sequence[Any] = (), inputs: Sequence[str] = ("X", "ratio")
) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*before, helper.make_node("Dropout", inputs, ["Y"])],
        "g",
        [value("X", TensorProto.FLOAT, ("rows", 1))],
        [value("Y", TensorProto.FLOAT, ("rows", 1))],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def constant(value: Any) -> Any:
    return helper.make_node("Constant", [], ["switch"], value=value)


SWITCHED = ("X", "ratio", "switch")


@pytest.mark.parametrize(
    "data",
    [
        dropping([RATIO]),
        dropping([RATIO, OFF], inputs=SWITCHED),
        dropping([RATIO, SPELT], inputs=SWITCHED),
        dropping([RATIO], [constant(OFF)], SWITCHED),
        dropping([RATIO], inputs=("X", "ratio", "")),
    ],
)
def test_dropout_that_is_off_is_served(data: bytes) -> None:
    rows = np.arange(1.0, 5.0)[:, None]
    np.testing.assert_array_equal(load_onnx(data).predict(rows).outputs, rows)


@pytest.mark.parametrize(
    "data",
    [
        dropping([RATIO, ON], inputs=SWITCHED),
        dropping([RATIO], [constant(ON)], SWITCHED),
        # Computed, so that nothing is known of it.
        dropping(
            [RATIO, numpy_helper.from_array(np.ones((), np.bool_), "on")],
            [helper.make_node("Not", ["on"], ["switch"])],
            SWITCHED,
        ),
    ],
)
def test_dropout_that_may_be_on_is_refused(data: bytes) -> None:
    with pytest.raises(ModelLoadError, match="Dropout draws at random"):
        load_onnx(data)
