"""Networks of PyTorch as `torch.export` gives them, on a table that comes with scikit-learn."""

from typing import Any

import pandas as pd
import torch
from tables import breast_cancer

COLUMNS = 9
"""Few enough to be enumerated."""

CLASSES = ("malignant", "benign")


class Network(torch.nn.Module):
    """Scaled columns through products wide enough for a library of matrices to share them out."""

    def __init__(self, X: pd.DataFrame, width: int, strength: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("mean", torch.tensor(X.mean().to_numpy()).float())
        self.register_buffer("spread", torch.tensor(X.std().to_numpy()).float())
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(X.shape[1], width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, width),
            torch.nn.GELU(),
            torch.nn.Linear(width, 2),
        )
        with torch.no_grad():
            self.layers[-1].weight.mul_(strength)

    def forward(self, rows: Any) -> Any:
        return torch.softmax(self.layers((rows - self.mean) / self.spread), 1)


def network(
    *, columns: int = COLUMNS, width: int = 64, strength: float = 1.0
) -> tuple[Any, pd.DataFrame, pd.Series]:
    """An exported program, its table and its labels; strength: factor of the last weights."""
    X, y = breast_cancer()
    X = X.iloc[:, :columns]
    rows = torch.tensor(X.iloc[:4].to_numpy()).float()
    shapes = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(
        Network(X, width, strength).eval(), (rows,), dynamic_shapes=shapes
    )
    return program, X, y.map(dict(enumerate(CLASSES)))
