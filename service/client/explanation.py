"""An explanation as an application holds it, and as `shap` and pandas do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from schemas import ExplanationBody
from schemas.messages import PerFeature, PerOutput, Scalar, TopEntry
from service.client.errors import NoValuesError

if TYPE_CHECKING:
    import pandas as pd
    import shap

Instance = Mapping[str, Scalar | None]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Attributions of N instances over F columns and C outputs.

    body: the document as the service sent it. instances: what it explains, None where they were
    erased.
    """

    body: ExplanationBody
    instances: Sequence[Instance | None]

    @property
    def status(self) -> str:
        """complete, pending, failed or skipped; reason says why of the last two."""
        return self.body.status

    @property
    def reason(self) -> str | None:
        return self.body.reason

    @property
    def is_complete(self) -> bool:
        return self.body.status == "complete"

    @property
    def is_pending(self) -> bool:
        return self.body.status == "pending"

    @property
    def feature_names(self) -> list[str]:
        return self.body.feature_names

    @property
    def output_names(self) -> list[str]:
        return self.body.output_names

    @property
    def values(self) -> PerFeature:
        """Shape (N, F, C), in output_space; None for an instance that was erased. Raises
        NoValuesError where there are none.
        """
        if self.body.values is None:
            raise NoValuesError(self._why_none())
        return self.body.values

    @property
    def base_values(self) -> PerOutput:
        """Shape (N, C); with the values of an instance they add up to its outputs."""
        if self.body.base_values is None:
            raise NoValuesError(self._why_none())
        return self.body.base_values

    @property
    def top(self) -> list[list[TopEntry] | None]:
        """The strongest contributions of each instance. Raises as values does."""
        if self.body.top is None:
            raise NoValuesError(self._why_none())
        return self.body.top

    def to_shap(self) -> "shap.Explanation":
        """As `shap` has it, for its plots; needs shap. The numbers are the same.

        values (N, F), base_values (N,) and output_names a text for one output; else (N, F, C),
        (N, C) and a list, so that `[:, :, "name"]` takes one out. data is (N, F), a missing cell
        NaN among numbers and None among others; all of an erased instance is NaN. Raises
        NoValuesError.
        """
        import numpy as np
        import shap

        width = len(self.output_names)
        blank, no_base = [[math.nan] * width] * len(self.feature_names), [math.nan] * width
        values = np.array([blank if row is None else row for row in self.values])
        base_values = np.array([no_base if row is None else row for row in self.base_values])
        errors = self.body.standard_errors
        error_std = (
            None if errors is None else np.array([blank if row is None else row for row in errors])
        )
        output_names: str | list[str] = self.output_names
        if len(self.output_names) == 1:
            values, base_values, output_names = values[..., 0], base_values[:, 0], output_names[0]
            error_std = None if error_std is None else error_std[..., 0]
        return shap.Explanation(
            values,
            base_values,
            data=self._data(),
            feature_names=self.feature_names,
            output_names=output_names,
            error_std=error_std,
        )

    def to_frame(self) -> "pd.DataFrame":
        """One row a contribution, for pandas: instance, output, feature, value, contribution, and
        standard_error where it was estimated; none of an erased instance. Raises NoValuesError.
        """
        import pandas as pd

        errors, rows = self.body.standard_errors, []
        for i, (instance, columns) in enumerate(zip(self.instances, self.values, strict=True)):
            for j, k in product(range(len(columns or ())), range(len(self.output_names))):
                assert columns is not None
                feature = self.feature_names[j]
                row = {"instance": i, "output": self.output_names[k], "feature": feature}
                row |= {"value": _cell(instance, feature), "contribution": columns[j][k]}
                estimated = None if errors is None else errors[i]
                if estimated is not None:
                    row["standard_error"] = estimated[j][k]
                rows.append(row)
        return pd.DataFrame(rows)

    def _data(self) -> Any:  # noqa: ANN401 - numpy is only there where it is asked for
        import numpy as np

        cells = [[_cell(row, name) for name in self.feature_names] for row in self.instances]
        numbers = all(
            cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool))
            for row in cells
            for cell in row
        )
        return np.array(cells, dtype=np.float64 if numbers else object)

    def _why_none(self) -> str:
        if self.body.is_withheld:
            return "this key's role may not see every column: see body.visible"
        if not self.is_complete:
            return f"the explanation is {self.status}" + (f": {self.reason}" if self.reason else "")
        return f"{self.body.method} gives no Shapley values: see body.local_model or body.path"


def _cell(instance: Instance | None, feature: str) -> Scalar | None:
    return None if instance is None else instance.get(feature)
