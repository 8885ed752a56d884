"""Training tables: from CSV, Parquet, frames or arrays to raw rows in the model's own coding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explainers.base import FloatArray, Level, RawColumns
from service.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN_CODE = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows (N, F) coded as RawColumns says, and the target as the file has it."""

    rows: FloatArray
    target: "pd.Series"
    ignored: tuple[str, ...]
    frame: "pd.DataFrame"


def read_frame(path: Path, *, text_columns: Sequence[str] = ()) -> "pd.DataFrame":
    """A CSV or Parquet file as a frame. In CSV only the empty field is missing; `text_columns`
    stay text even where they look like numbers.
    """
    import pandas as pd

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return pd.read_csv(
            path,
            keep_default_na=False,
            na_values=[""],
            dtype=dict.fromkeys(text_columns, str),
        )
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: {error}") from error


def column_names(path: Path) -> list[str]:
    """The header of a table file, without reading its rows."""
    if path.suffix.lower() in (".parquet", ".pq"):
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(path).names)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path}: {error}") from error
    import pandas as pd

    try:
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: {error}") from error


def split_target(frame: "pd.DataFrame", target: str) -> tuple["pd.DataFrame", "pd.Series"]:
    """Columns and target; InvalidInputError for an absent or incomplete target."""
    if target not in frame.columns:
        raise InvalidInputError(f"the data have no column {target!r} to be the target")
    labels = frame[target]
    if labels.isna().any():
        raise InvalidInputError(
            f"the target {target!r} is empty in {int(labels.isna().sum())} rows"
        )
    return frame.drop(columns=target), labels


def encode_frame(
    frame: "pd.DataFrame", columns: RawColumns, *, unknown: Mapping[str, str]
) -> FloatArray:
    """The frame's rows in `columns` order and coding; InvalidInputError names what does not fit."""
    absent = [name for name in columns.names if name not in frame.columns]
    if absent:
        raise InvalidInputError(
            f"the model reads columns the data do not have: {', '.join(map(repr, absent[:10]))}"
        )
    rows = np.empty((len(frame), len(columns)), dtype=np.float64)
    for i, (name, levels) in enumerate(zip(columns.names, columns.levels, strict=True)):
        series = frame[name]
        if levels is None:
            rows[:, i] = _numbers(series)
        else:
            rows[:, i] = _codes(series, levels, unknown.get(name, "refuse"))
    return rows


def _numbers(series: "pd.Series") -> FloatArray:
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(series):
        raise InvalidInputError(
            f"column {series.name!r} holds {series.dtype} values, but the model reads numbers; "
            "if it is a category column, give its levels in the model's order with --categories"
        )
    numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.any(np.abs(numbers[~np.isnan(numbers)]) > np.finfo(np.float32).max):
        raise InvalidInputError(f"column {series.name!r} holds numbers beyond float32")
    return numbers


def _codes(series: "pd.Series", levels: Sequence[Level], unknown: str) -> FloatArray:
    code_of = {_key(level): float(code) for code, level in enumerate(levels)}
    missing = series.isna().to_numpy()
    values = series.astype(object).to_numpy()
    codes = np.full(len(values), np.nan)
    unseen = {"missing": np.nan, "ignore": UNKNOWN_CODE}.get(unknown)
    for row in np.flatnonzero(~missing):
        code = code_of.get(_key(values[row]), unseen)
        if code is None:
            raise InvalidInputError(
                f"column {series.name!r} holds a level the model does not know (row {row + 1}); "
                f"it knows {len(levels)} levels"
            )
        codes[row] = code
    return codes


def _key(value: object) -> tuple[str, object]:
    """Levels compare as JSON does: 1 equals 1.0, neither equals True or "1"."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool):
        return ("boolean", value)
    return ("number", float(value)) if isinstance(value, (int, float)) else ("text", str(value))
