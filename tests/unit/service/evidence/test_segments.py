import os
import subprocess
import sys
from pathlib import Path

import pytest
from spools import files_end_at
from syncs import Syncs

from service.evidence.events import Row
from service.evidence.segments import DamagedRowError, Segment, decode_row, encode_row

COLUMNS = ("event_id", "idempotency_key", "payload")
ROWS: list[Row] = [("one", None, b"\x00\xff" * 40), ("two", "key/ü", b""), ("three", "", b"3" * 70)]


def written(path: Path, rows: list[Row]) -> list[int]:
    segment = Segment.create(path, COLUMNS)
    offsets = [offset for row in rows for offset in segment.append([row])]
    segment.close()
    return offsets


def adopted(path: Path) -> Segment:
    segment = Segment.adopt(path, known=COLUMNS)
    assert segment is not None
    return segment


def rows_in(path: Path) -> list[Row]:
    segment = adopted(path)
    rows = [row for _, row in segment.contents()]
    assert segment.rows == len(rows)
    segment.close()
    return rows


@pytest.mark.parametrize(
    "row", [(), (None,), ("", b"", 0), ("a\x00b", b"\n", -(2**63)), (2**80, "ü" * 300, b"x" * 9)]
)
def test_a_row_is_read_as_it_was_written(row: Row) -> None:
    assert decode_row(encode_row(row)) == row


@pytest.mark.parametrize("cut", [1, 4, 7, 8])
def test_a_row_that_is_cut_off_is_damaged(cut: int) -> None:
    with pytest.raises(DamagedRowError):
        decode_row(encode_row(("three", 3))[:-cut])


def test_a_value_of_no_known_kind_is_damaged() -> None:
    with pytest.raises(DamagedRowError):
        decode_row(b"x" + encode_row(("a",))[1:])


def test_rows_come_back_in_order_and_each_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    offsets = written(path, ROWS)
    assert path.stat().st_mode & 0o777 == 0o600
    segment = adopted(path)
    assert list(segment.contents()) == list(zip(offsets, ROWS, strict=True))
    assert [segment.row_at(offset) for offset in offsets] == ROWS
    segment.remove()
    assert not path.exists()
    assert segment.row_at(offsets[0]) is None


def test_what_is_appended_is_on_the_disk_when_it_is_said_and_its_file_is_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs.watched(monkeypatch)
    path = tmp_path / "a.segment"
    segment = Segment.create(path, COLUMNS)
    assert syncs.covers(path)
    assert syncs.knows(tmp_path)
    for row in ROWS:
        segment.append([row])
        assert syncs.covers(path)
    segment.close()


def test_a_file_without_room_holds_nothing_of_what_it_did_not_take(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    segment = Segment.create(path, COLUMNS)
    segment.append(ROWS[:1])
    size = path.stat().st_size
    with files_end_at(size + 40), pytest.raises(OSError, match="File too large"):
        segment.append(ROWS[1:])
    assert (path.stat().st_size, segment.rows) == (size, 1)
    segment.close()
    assert rows_in(path) == ROWS[:1]


def test_what_was_removed_between_its_opening_and_its_lock_is_not_adopted(tmp_path: Path) -> None:
    written(tmp_path / "a.segment", ROWS)
    with (tmp_path / "a.segment").open("r+b") as file:
        (tmp_path / "a.segment").unlink()
        removed = Path(f"/proc/self/fd/{file.fileno()}")
        assert Segment.adopt(removed, known=COLUMNS) is None


def test_wherever_the_last_append_ends_the_rows_before_it_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    last = written(path, ROWS)[-1]
    content = path.read_bytes()
    for length in range(last, len(content)):
        path.write_bytes(content[:length])
        assert rows_in(path) == ROWS[:2]
        segment = adopted(path)
        assert not segment.is_damaged
        segment.close()


@pytest.mark.parametrize("at", [0, 4, 9, -1])
def test_a_flipped_bit_in_the_tail_is_noticed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.segment"
    last = written(path, ROWS)[-1]
    content = bytearray(path.read_bytes())
    content[at if at < 0 else last + at] ^= 1
    path.write_bytes(content)
    assert rows_in(path) == ROWS[:2]


@pytest.mark.parametrize("at", [0, 3, 4, 8, 20, -1])
def test_a_flipped_bit_costs_its_own_row_alone_and_the_file_is_put_aside(
    tmp_path: Path, at: int
) -> None:
    path = tmp_path / "a.segment"
    offsets = written(path, ROWS)
    content = bytearray(path.read_bytes())
    content[offsets[1] + at if at >= 0 else offsets[2] - 1] ^= 1
    path.write_bytes(content)
    segment = adopted(path)
    assert [row for _, row in segment.contents()] == [ROWS[0], ROWS[2]]
    assert (segment.rows, segment.is_damaged) == (2, True)
    segment.remove()
    assert [each.name for each in tmp_path.iterdir()] == ["a.damaged"]
    assert (tmp_path / "a.damaged").read_bytes() == content


def test_a_last_row_that_is_all_there_and_changed_is_no_tail(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    written(path, ROWS)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    segment = adopted(path)
    assert segment.is_damaged
    segment.remove()
    assert (tmp_path / "a.damaged").exists()


def test_a_bit_that_flips_while_the_file_is_held_is_noticed_too(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    segment = Segment.create(path, COLUMNS)
    (at, *_) = segment.append(ROWS)
    content = bytearray(path.read_bytes())
    content[at + 10] ^= 1
    path.write_bytes(content)
    assert [row for _, row in segment.contents()] == ROWS[1:]
    assert segment.is_damaged


def test_zeros_that_a_power_cut_leaves_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    written(path, ROWS)
    with path.open("ab") as file:
        file.write(bytes(4096))
    assert rows_in(path) == ROWS
    segment = adopted(path)
    assert not segment.is_damaged
    segment.close()


@pytest.mark.parametrize("length", [0, 5, 30])
def test_a_file_that_was_being_made_holds_nothing(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.segment"
    written(path, [])
    path.write_bytes(path.read_bytes()[:length])
    assert rows_in(path) == []


def test_a_small_file_whose_head_is_damaged_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    written(path, ROWS)
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedRowError, match="first bytes"):
        Segment.adopt(path, known=COLUMNS)
    assert path.read_bytes() == content


@pytest.mark.parametrize("known", [("event_id", "payload"), ()])
def test_what_a_later_release_wrote_is_left_alone(tmp_path: Path, known: tuple[str, ...]) -> None:
    path = tmp_path / "a.segment"
    written(path, ROWS)
    with pytest.raises(DamagedRowError, match="later release"):
        Segment.adopt(path, known=known)
    assert rows_in(path) == ROWS


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    path.write_bytes(b"another kind of spool, which holds what somebody was told is kept" * 100)
    with pytest.raises(DamagedRowError, match="first bytes"):
        Segment.adopt(path, known=COLUMNS)


def test_a_file_is_adopted_only_when_nobody_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    segment = Segment.create(path, COLUMNS)
    segment.append(ROWS)
    assert Segment.adopt(path, known=COLUMNS) is None
    segment.close()
    owner = adopted(path)
    assert Segment.adopt(path, known=COLUMNS) is None
    owner.remove()
    assert Segment.adopt(path, known=COLUMNS) is None


OWNER = """
import os, sys
from pathlib import Path
from service.evidence.segments import Segment
segment = Segment.create(Path(sys.argv[1]), ("event_id", "idempotency_key", "payload"))
segment.append([("one", None, b"1")])
os.write(1, b"ready\\n")
os.read(0, 1)
"""


def test_the_lock_of_a_process_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.segment"
    command = [sys.executable, "-c", OWNER, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=dict(os.environ)) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert Segment.adopt(path, known=COLUMNS) is None
        owner.kill()
    assert rows_in(path) == [("one", None, b"1")]
