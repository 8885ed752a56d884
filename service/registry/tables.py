"""Training tables: from CSV, Parquet, frames or arrays to raw rows in the model's own coding."""

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explainers.base import FloatArray, Level, RawColumns
from service.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN_CODE = -1.0
ENCODING = "utf-8-sig"
PARQUET = frozenset({".parquet", ".pq"})


def read_frame(path: Path, *, text_columns: Collection[str] = ()) -> "pd.DataFrame":
    """A CSV or Parquet file as a frame. In CSV only the empty field is missing; `text_columns`
    stay text even where they look like numbers.
    """
    import pandas as pd

    try:
        if path.suffix.lower() in PARQUET:
            return pd.read_parquet(path)
        _check_rows(path)
        return pd.read_csv(
            path,
            index_col=False,
            keep_default_na=False,
            na_values=[""],
            dtype=dict.fromkeys(text_columns, str),
            low_memory=False,
            encoding=ENCODING,
        )
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error


def _check_rows(path: Path) -> None:
    """Every row has the header's number of fields: pandas would fill up a short one."""
    with path.open(newline="", encoding=ENCODING) as lines:
        rows = csv.reader(lines)
        expected = len(next(rows, []))
        for row in rows:
            if row and len(row) != expected:
                raise ValueError(
                    f"line {rows.line_num} has {len(row)} fields, the header has {expected}"
                )


def column_names(path: Path) -> list[str]:
    """The header of a table file, without reading its rows; a name given twice is refused."""
    try:
        if path.suffix.lower() in PARQUET:
            import pyarrow.parquet as pq

            names = list(pq.read_schema(path).names)
        else:
            with path.open(newline="", encoding=ENCODING) as lines:
                names = next(csv.reader(lines), [])
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error
    return check_unique(names)


def check_unique(names: Iterable[str]) -> list[str]:
    """The names; InvalidInputError when one stands twice."""
    counts = Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise InvalidInputError(
            f"the data have several columns named {', '.join(map(repr, twice[:10]))}; rename them"
        )
    return list(counts)


def unreadable(path: Path, error: Exception) -> InvalidInputError:
    """What a reader of the file may raise, in one line."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InvalidInputError(f"{path}: {' '.join(reason.split())}")


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

    if not pd.api.types.is_any_real_numeric_dtype(series) and not pd.api.types.is_bool_dtype(
        series
    ):
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
    kinds = {kind for kind, _ in code_of}
    missing = series.isna().to_numpy()
    keys = {row: _key(value) for row, value in enumerate(series.tolist()) if not missing[row]}
    if unknown == "refuse" or not {kind for kind, _ in keys.values()} <= kinds:
        strays = [row for row, key in keys.items() if key not in code_of]
        if strays:
            raise InvalidInputError(
                f"column {series.name!r} holds {len(strays)} values the model does not know, the "
                f"first one {keys[strays[0]][0]} in row {strays[0] + 1}; "
                f"it knows {len(levels)} levels of {' and '.join(sorted(kinds))}"
            )
    if keys and not any(key in code_of for key in keys.values()):
        raise InvalidInputError(
            f"column {series.name!r} holds none of the {len(levels)} levels the model knows"
        )
    codes = np.full(len(series), np.nan)
    unseen = np.nan if unknown == "missing" else UNKNOWN_CODE
    codes[list(keys)] = [code_of.get(key, unseen) for key in keys.values()]
    return codes


def unknown_shares(
    frame: "pd.DataFrame", columns: RawColumns, rows: FloatArray
) -> dict[str, float]:
    """By column, the share of its cells with a level the model does not know, if there are any."""
    shares = {
        name: float(np.mean(~(rows[:, i] >= 0) & frame[name].notna().to_numpy()))
        for i, name in enumerate(columns.names)
        if columns.levels[i] is not None
    }
    return {name: share for name, share in shares.items() if share}


def _key(value: object) -> tuple[str, object]:
    """Levels compare as JSON does: 1 equals 1.0, neither equals True or "1"."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, (int, float)):
        return ("number", float(value))
    return ("text", value) if isinstance(value, str) else (type(value).__name__, str(value))
