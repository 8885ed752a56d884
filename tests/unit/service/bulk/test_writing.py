"""The file that comes out: all of it or nothing of it."""

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.bulk.writing import METADATA_KEY, output
from service.errors import UnavailableError

SCHEMA = pa.schema(
    [("row", pa.int64()), ("reason", pa.string())], metadata={METADATA_KEY: orjson.dumps({"a": 1})}
)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_lines_come_back_with_nulls_where_they_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with output(path, SCHEMA) as file:
        file.write([{"row": 1}, {"row": 2, "reason": "bad"}])
        file.write([{"row": 3}])
        assert files(tmp_path) == [".out.parquet.partial"]
    table = pq.read_table(path)
    assert table.to_pylist() == [
        {"row": 1, "reason": None},
        {"row": 2, "reason": "bad"},
        {"row": 3, "reason": None},
    ]
    assert orjson.loads(table.schema.metadata[METADATA_KEY]) == {"a": 1}
    assert files(tmp_path) == ["out.parquet"]


def test_what_ends_early_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"from before")

    def interrupted() -> None:
        with output(path, SCHEMA) as file:
            file.write([{"row": 1}])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"from before"
    assert files(tmp_path) == ["out.parquet"]


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".out.parquet.partial").write_bytes(b"x" * 10_000)
    with output(tmp_path / "out.parquet", SCHEMA) as file:
        file.write([{"row": 1}])
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 1


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with output(path, SCHEMA) as file:
        file.write([{"row": 1}])
        with pytest.raises(UnavailableError, match="another run"), output(path, SCHEMA):
            pass
    assert pq.read_table(path).num_rows == 1


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(UnavailableError, match="No such file"),
        output(tmp_path / "none" / "out.parquet", SCHEMA),
    ):
        pass
