"""ONNX graphs as the runtime itself answers them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


class Exported:
    """An ONNX graph with one input per column, behind scikit-learn's methods."""

    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(graph)

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        feed = {
            value.name: rows[[value.name]].to_numpy().astype(FED[value.type])
            for value in self.session.get_inputs()
        }
        return np.asarray(self.session.run(["probabilities"], feed)[0], dtype=np.float64)


FED: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(double)": np.float64,
    "tensor(string)": object,
}
