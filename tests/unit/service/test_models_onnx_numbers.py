"""What an ONNX graph's integer and boolean inputs take."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper

from service.models.onnx import OnnxModel, load_onnx
from service.registry.inference import infer_schema


def typed(kind: int) -> OnnxModel:
    """The sum of a float column and one of this kind."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["n"], ["m"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["m", "x"], ["Y"]),
        ],
        "g",
        [value("n", kind, ("rows", 1)), value("x", TensorProto.FLOAT, ("rows", 1))],
        [value("Y", TensorProto.FLOAT, ("rows", 1))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return load_onnx(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "fits", "strays", "column"),
    [
        ("INT64", [-3.0, 2.0**40], [1.9, -0.9, 2.0**63, np.inf], ("integer", None, None)),
        ("INT32", [-3.0, 5.0], [1.9, 3e9, -3e9], ("integer", -(2**31), 2**31 - 1)),
        ("BOOL", [0.0, 1.0], [2.0, 0.5, -1.0], ("integer", 0, 1)),
        ("DOUBLE", [0.0, 1.5], [], ("number", None, None)),
    ],
)
def test_numbers_an_input_cannot_hold_are_refused(
    kind: str, fits: list[float], strays: list[float], column: Any
) -> None:
    native = typed(getattr(TensorProto, kind))
    rows = np.column_stack([fits, np.zeros(len(fits))])
    np.testing.assert_array_equal(native.predict(rows).outputs[:, 0], fits)
    for stray in strays:
        with pytest.raises(ValueError, match="'n' takes only what"):
            native.predict(np.array([[stray, 0.0]]))
        with pytest.raises(ValueError, match="'n' takes only what"):
            native.evaluate(np.array([[stray, 0.0], [1.0, 1.0]]))
    # A table read from a CSV may hold the column as floats.
    inferred = infer_schema(native.columns, rows, pd.DataFrame(rows, columns=["n", "x"]))
    first = inferred.columns[0]
    assert (first.kind, first.minimum, first.maximum) == column
    assert inferred.columns[1].kind == "number"


def test_ids_beyond_exact_integers_stay_numbers() -> None:
    native = typed(TensorProto.INT64)
    rows = np.array([[2.0**60, 0.0]])
    inferred = infer_schema(native.columns, rows, pd.DataFrame(rows, columns=["n", "x"]))
    assert inferred.columns[0].kind == "number"
