"""Tables in: the same instances from CSV and Parquet, nothing guessed, nothing lost."""

import hashlib
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas import ModelSchema, RowCodec
from service.bulk.checking import check
from service.bulk.reading import Chunk, Table
from service.errors import InvalidInputError

SCHEMA = ModelSchema.from_json(
    {
        "type": "object",
        "properties": {
            "amount": {"type": "number"},
            "count": {"type": ["integer", "null"]},
            "status": {"type": ["string", "null"], "enum": ["NA", "1", "none", None]},
            "grade": {"type": "integer", "enum": [1, 2]},
            "is_owner": {"type": ["boolean", "null"]},
        },
        "required": ["amount", "grade"],
    }
)
HEADER = "amount,count,status,grade,is_owner,extra\n"


def table_of(path: Path, content: str) -> Table:
    path.write_text(content)
    return Table.open(path, SCHEMA)


def instances(table: Table, size: int = 100) -> list[dict[str, Any]]:
    return [dict(row) for chunk in table.chunks(size) for _, row in chunk.rows]


def accepted(chunk: Chunk) -> tuple[tuple[int, ...], dict[int, str]]:
    found, refused = check(RowCodec(SCHEMA), chunk)
    return () if found is None else found.numbers, dict(refused)


def test_both_formats_give_the_same_instances(tmp_path: Path) -> None:
    csv = table_of(tmp_path / "t.csv", HEADER + "1.5,3,NA,1,true,x\n2,,1,2,FALSE,y\n3e2,4,,1,,z\n")
    frame = pd.DataFrame(
        {
            "amount": [1.5, 2.0, 300.0],
            "count": pd.array([3, None, 4], dtype="Int64"),
            "status": pd.Categorical(["NA", "1", None]),
            "grade": [1, 2, 1],
            "is_owner": pd.array([True, False, None], dtype="boolean"),
            "extra": ["x", "y", "z"],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    parquet = Table.open(tmp_path / "t.parquet", SCHEMA)
    assert instances(csv) == instances(parquet)
    assert instances(csv)[0] == {
        "amount": 1.5,
        "count": 3,
        "status": "NA",
        "grade": 1,
        "is_owner": True,
    }
    assert csv.ignored == parquet.ignored == ("extra",)
    assert csv.n_rows == parquet.n_rows == 3
    digest = hashlib.sha256((tmp_path / "t.csv").read_bytes()).hexdigest()
    assert csv.digest == f"sha256:{digest}"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_chunks_have_as_many_rows_as_asked_whatever_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    frame = pd.DataFrame({"amount": range(10), "grade": 1})
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=3)
    chunks = list(Table.open(path, SCHEMA).chunks(4))
    assert [[number for number, _ in chunk.rows] for chunk in chunks] == [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10],
    ]
    assert chunks[2].rows[1][1]["amount"] == 9


def test_a_bad_row_is_named_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    lines = (
        "1,1,NA,1,true,x",  # 1
        "abc,1,NA,1,true,x",
        "1,1.5,NA,1,true,x",
        "1,1,odd,1,true,x",
        "1,1,NA,1,yes,x",  # 5
        ",1,NA,1,true,x",
        "1,1,NA,1,true",
        "",
        "1,1,NA,1,true,x,y",  # 8: blank lines are no rows
        "1e999,1,NA,1,true,x",
        "1_000,1,NA,1,true,x",  # 10
        "123456789012345678901,1,NA,1,true,x",
        "nan,1,NA,1,true,x",
        "-2.5, 7 ,none,2,,x",
        "oh,no,NA,1,true,x",
    )
    table = table_of(tmp_path / "t.csv", HEADER + "\n".join(lines))
    (chunk,) = table.chunks(100)
    numbers, refused = accepted(chunk)
    assert numbers == (1, 13)
    assert sorted(refused) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14]
    assert refused[2] == "amount: must be a number"
    assert "count: must be a whole number" in refused[3]
    assert refused[4].startswith("status: ")
    assert refused[6] == "amount: must not be null"
    assert refused[7] == "has 5 fields, the header has 6"
    assert refused[14] == "amount: must be a number; count: must be a whole number"
    assert not any("odd" in reason or "abc" in reason for reason in refused.values())


def test_more_bad_rows_than_one_refusal_lists_are_all_found(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.csv", HEADER + "x,x,x,x,x,x\n" * 150 + "1,1,NA,1,true,x\n")
    (chunk,) = table.chunks(200)
    numbers, refused = accepted(chunk)
    assert numbers == (151,)
    assert len(refused) == 150


def test_a_chunk_of_bad_rows_has_nothing_to_explain(tmp_path: Path) -> None:
    (chunk,) = table_of(tmp_path / "t.csv", HEADER + "x,1,NA,1,true,x\n").chunks(5)
    assert accepted(chunk) == ((), {1: "amount: must be a number"})


def test_parquet_values_json_lacks_are_missing_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {
        "amount": [Decimal("1.5"), Decimal(2), Decimal(3)],
        "count": [1.0, float("nan"), float("inf")],
        "grade": [1, 1, 1],
    }
    pq.write_table(pa.table(columns), path)
    (chunk,) = Table.open(path, SCHEMA).chunks(9)
    numbers, refused = accepted(chunk)
    assert numbers == (1, 2)
    assert refused == {3: "count: must be a whole number"}
    pq.write_table(pa.table({"amount": [date(2026, 1, 1)], "grade": [1]}), path)
    (chunk,) = Table.open(path, SCHEMA).chunks(9)
    assert accepted(chunk) == ((), {1: "amount: must be a number"})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.csv", "amount\n1\n", "lacks columns the model reads: 'grade'"),
        ("t.csv", "amount,grade,grade\n1,1,1\n", "several columns named 'grade'"),
        ("t.csv", "", "lacks columns"),
        ("t.parquet", "no parquet", r"t\.parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_at_once(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        table_of(tmp_path / name, content)


def test_a_file_that_is_not_there_or_breaks_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        Table.open(tmp_path / "none.csv", SCHEMA)
    broken = table_of(tmp_path / "t.csv", HEADER + '1,1,NA,1,true,"x\n')
    with pytest.raises(InvalidInputError, match="unexpected end"):
        list(broken.chunks(5))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.csv", HEADER + "1,1,NA,1,true,x\n" * 3)
    chunks = table.chunks(2)
    next(chunks)
    with table.path.open("a") as file:
        file.write("2,1,NA,1,true,x\n")
    with pytest.raises(InvalidInputError, match="was changed"):
        list(chunks)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_without_rows_has_no_chunks(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    frame = pd.DataFrame({"amount": [], "grade": []})
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    table = Table.open(path, SCHEMA)
    assert (table.n_rows, list(table.chunks(5))) == (0, [])


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["anna ", "4711", "", None], ["anna ", "4711", None, None]),
        ([4711, -1, None], ["4711", "-1", None]),
        ([4711.0, float("nan"), None], [False, None, None]),
        ([True, False, None], [False, False, None]),
        ([date(2026, 1, 1), None], [False, None]),
        ([Decimal(4711), None], [False, None]),
    ],
)
def test_a_parquet_cell_names_whom_csv_would_name_or_nobody_that_is_accepted(
    tmp_path: Path, cells: list[Any], names: list[Any]
) -> None:
    path, n_rows = tmp_path / "t.parquet", len(cells)
    columns = {"amount": [1.5] * n_rows, "client": cells, "grade": [1] * n_rows, "note": cells}
    pq.write_table(pa.table(columns), path)
    table = Table.open(path, SCHEMA, subject_column="client")
    assert table.ignored == ("note",)
    (chunk,) = table.chunks(9)
    assert chunk.subjects == ("client", dict(enumerate(names, start=1)))
    assert chunk.rows == [(number, {"amount": 1.5, "grade": 1}) for number in chunk.subjects.names]
    numbers, refused = accepted(chunk)
    assert len(numbers) == n_rows - names.count(False)
    assert set(refused.values()) <= {"client: must be text or null"}


def test_parquet_columns_may_have_any_name(tmp_path: Path) -> None:
    path, name = tmp_path / "t.parquet", "a.b[0] / ~c"
    schema = ModelSchema.from_json(
        {"type": "object", "properties": {name: {"type": "number"}}, "required": [name]}
    )
    pq.write_table(pa.table({name: [1.0, None], "a": [2.0, 2.0]}), path)
    (chunk,) = Table.open(path, schema).chunks(5)
    found, refused = check(RowCodec(schema), chunk)
    assert found is not None
    assert found.body.rows == [(1.0,)]
    assert refused == {2: f"{name}: must not be null"}
