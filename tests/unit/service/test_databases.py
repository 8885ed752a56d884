"""Opening a file that others open: SQLite refuses some statements at once, patient or not."""

import sqlite3

import pytest

from service.databases import _follow_write_ahead_log


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
