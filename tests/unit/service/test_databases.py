"""Opening a file that others open: SQLite refuses some statements at once, patient or not."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from service.databases import _follow_write_ahead_log, connect


class Refusing:
    """A cursor whose statements fail so many times with that code, as beside another process that
    turns the same file (4 of 400 times, of two that open a new one at once).
    """

    def __init__(self, code: int, times: int) -> None:
        self.code, self.left, self.executed = code, times, 0

    def execute(self, statement: str) -> object:
        assert statement == "PRAGMA journal_mode=WAL"
        self.executed += 1
        if self.left == 0:
            return self
        self.left -= 1
        error = sqlite3.OperationalError("refused")
        error.sqlite_errorcode = self.code
        raise error


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY])
def test_who_is_refused_as_busy_tries_again(code: int) -> None:
    cursor = Refusing(code, 3)
    _follow_write_ahead_log(cursor, patience_seconds=30)
    assert (cursor.executed, cursor.left) == (4, 0)


def test_patience_ends() -> None:
    with pytest.raises(sqlite3.OperationalError):
        _follow_write_ahead_log(Refusing(sqlite3.SQLITE_BUSY, 1000), patience_seconds=0.05)


def test_another_error_is_raised_at_once() -> None:
    cursor = Refusing(sqlite3.SQLITE_IOERR, 1)
    with pytest.raises(sqlite3.OperationalError):
        _follow_write_ahead_log(cursor, patience_seconds=30)
    assert cursor.executed == 1


def test_a_new_file_has_large_pages_and_one_of_before_keeps_its_own(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as before:
        before.execute("PRAGMA page_size=4096")
        before.execute("CREATE TABLE kept (value TEXT)")
    for name, size in (("new.db", 8192), ("old.db", 4096)):
        url = make_url(f"sqlite:///{tmp_path / name}")
        engine = connect(url, connections=1, busy_timeout_seconds=1)
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE TABLE one (value TEXT)")
            assert connection.exec_driver_sql("PRAGMA page_size").scalar_one() == size
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        engine.dispose()
