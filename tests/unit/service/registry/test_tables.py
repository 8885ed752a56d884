from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from explainers.base import Level, RawColumns
from service.errors import InvalidInputError
from service.registry.tables import (
    column_names,
    encode_frame,
    read_frame,
    split_target,
    unknown_shares,
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


def coded(values: object, levels: tuple[Level, ...] | None, unknown: str = "refuse") -> list[float]:
    frame = pd.DataFrame({"c": values})
    rows = encode_frame(frame, RawColumns(("c",), (levels,)), unknown={"c": unknown})
    return [float(cell) for cell in rows[:, 0]]


def test_na_and_none_stay_values_and_only_the_empty_field_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "c,d\nNA,1\nNone,2\nnull,3\n,4\nnan,5\n")
    column = read_frame(path, text_columns=["c"])["c"]
    assert column.fillna("-").tolist() == ["NA", "None", "null", "-", "nan"]


def test_text_levels_stay_text_where_they_look_like_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, 'c,d\n"01",1\n"1",2\n')
    assert read_frame(path, text_columns=["c"])["c"].tolist() == ["01", "1"]


def test_numbers_are_read_to_the_nearest_double(tmp_path: Path) -> None:
    texts = [
        "0.1",
        "1e-310",
        "0.3000000000000000166",
        "9007199254740993.5",
        "1.7976931348623157e308",
    ]
    path = written(tmp_path, "c\n" + "\n".join(texts) + "\n")
    assert read_frame(path)["c"].tolist() == [float(text) for text in texts]


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffa,b\n1,2\n")
    assert column_names(path) == list(read_frame(path).columns) == ["a", "b"]


@pytest.mark.parametrize("row", ["1,2,3", "1"])
def test_row_with_another_number_of_fields_is_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(InvalidInputError, match=r"line 3 has [13] fields, the header has 2"):
        read_frame(written(tmp_path, f"a,b\n5,6\n{row}\n"))


def test_column_name_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="several columns named 'a'"):
        column_names(written(tmp_path, "a,b,a\n1,2,3\n"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a,b\n1,\xe9\n", b""])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_file_that_is_no_table_is_refused_in_one_line(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="data") as refusal:
        read_frame(path)
    assert "\n" not in str(refusal.value)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    for read in (read_frame, column_names):
        with pytest.raises(InvalidInputError, match="No such file"):
            read(tmp_path / "absent.csv")


def test_parquet_is_read_with_its_own_types(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": ["1", None], "d": [1.5, 2.5], "e": [True, False]})
    path = tmp_path / "data.parquet"
    frame.to_parquet(path)
    assert column_names(path) == ["c", "d", "e"]
    read = read_frame(path)
    columns = RawColumns(("e", "c"), (None, ("1", "2")))
    rows = encode_frame(read, columns, unknown={})
    np.testing.assert_array_equal(rows, [[1.0, 0.0], [0.0, np.nan]])


def test_target_must_be_there_and_complete() -> None:
    frame = pd.DataFrame({"a": [1, 2], "y": ["n", None]})
    with pytest.raises(InvalidInputError, match="no column 'z' to be the target"):
        split_target(frame, "z")
    with pytest.raises(InvalidInputError, match="'y' is empty in 1 rows"):
        split_target(frame, "y")
    X, y = split_target(frame, "a")
    assert list(X.columns) == ["y"]
    assert y.tolist() == [1, 2]


def test_columns_are_taken_by_name_whatever_their_order() -> None:
    frame = pd.DataFrame({"b": [1.0], "extra": [9.0], "a": [2.0]})
    rows = encode_frame(frame, RawColumns(("a", "b"), (None, None)), unknown={})
    assert rows.tolist() == [[2.0, 1.0]]


def test_absent_columns_are_named() -> None:
    with pytest.raises(InvalidInputError, match="columns the data do not have: 'b'"):
        encode_frame(pd.DataFrame({"a": [1.0]}), RawColumns(("a", "b"), (None, None)), unknown={})


@pytest.mark.parametrize(
    "values",
    [
        ["x", "y"],
        pd.Categorical([1, 2]),
        pd.to_datetime(["2020-01-01", "2021-01-01"]),
        [1 + 2j, 3],
        [1.0, np.inf],
        [1.0, 1e39],
    ],
)
def test_cells_that_are_no_numbers_of_float32_range_are_refused(values: object) -> None:
    with pytest.raises(InvalidInputError, match="column 'c' holds"):
        coded(values, None)


def test_levels_compare_as_json_does() -> None:
    assert coded([2, 1.0, 2.0], (1, 2)) == [1.0, 0.0, 1.0]
    assert coded([False, True], (False, True)) == [0.0, 1.0]
    assert coded(pd.Categorical(["b", "a"]), ("a", "b")) == [1.0, 0.0]


@pytest.mark.parametrize("unknown", ["refuse", "missing", "ignore"])
@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([1, 2], ("1", "2")),
        (["1", "2"], (1, 2)),
        ([True, False], (0, 1)),
        (["1", 1], ("1", "2")),
        (pd.to_datetime(["2020-01-01", "2021-01-01"]), ("2020-01-01", "2021-01-01")),
    ],
)
def test_levels_of_another_type_are_refused_however_unknown_ones_are_met(
    values: object, levels: tuple[Level, ...], unknown: str
) -> None:
    with pytest.raises(InvalidInputError, match="the model does not know"):
        coded(values, levels, unknown)


def test_unknown_levels_are_refused_missing_or_ignored() -> None:
    with pytest.raises(InvalidInputError, match=r"holds 1 values .* in row 2"):
        coded(["a", "z"], ("a", "b"))
    np.testing.assert_array_equal(coded(["a", "z"], ("a", "b"), "missing"), [0.0, np.nan])
    assert coded(["a", "z"], ("a", "b"), "ignore") == [0.0, -1.0]


@pytest.mark.parametrize("unknown", ["missing", "ignore"])
def test_column_without_a_single_known_level_is_refused(unknown: str) -> None:
    with pytest.raises(InvalidInputError, match="holds none of the 2 levels"):
        coded(["y", "z"], ("a", "b"), unknown)


@pytest.mark.parametrize("unknown", ["missing", "ignore"])
def test_share_of_unknown_levels_leaves_gaps_out(unknown: str) -> None:
    frame = pd.DataFrame({"c": ["a", "z", None, "b"], "d": ["a", "b", "a", None], "e": [1.0] * 4})
    levels = ("a", "b")
    columns = RawColumns(("c", "d", "e"), (levels, levels, None))
    rows = encode_frame(frame, columns, unknown={"c": unknown, "d": unknown})
    assert unknown_shares(frame, columns, rows) == {"c": 0.25}
