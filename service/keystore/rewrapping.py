"""The keys of a store under another key-encryption key: each wrapped anew, none changed.

While it lasts, the store says so to whoever opens it or would make keys: what a service in between
wrapped under the old key nobody could open afterwards.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Connection,
    Engine,
    LargeBinary,
    bindparam,
    cast,
    delete,
    func,
    select,
    update,
)

from service.databases import connect
from service.keystore.errors import WrongKeyError
from service.keystore.store import KeyStore, Tables, address_of, translated_errors
from service.keystore.wrapping import Kek

BATCH = 1000
"""Keys in one transaction: about 10 ms."""

_PATIENCE_SECONDS = 10.0

Progress = Callable[[int, int], None]
"""Called with how many keys are dealt with, and of how many."""


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What one run did. damaged: open under neither key, and are left as they are."""

    wrapped: int
    damaged: int
    is_forgotten: bool
    """No file of a SQLite store holds what was wrapped under the old key."""


def rewrap(
    url: str, old: Kek, new: Kek, *, progress: Progress = lambda _done, _of: None
) -> Rewrapped:
    """Wrap every key of the store anew, in transactions of BATCH.

    Stopped at any time, it is called again and goes on; until it has ended nobody opens the store,
    and from then on under the new key only. Raises WrongKeyError where neither the old key nor the
    new one is the store's, or it is being wrapped under a third; KeysUnavailableError.
    """
    address = address_of(url)
    tables = Tables.at(address)
    engine = connect(address, connections=1, busy_timeout_seconds=_PATIENCE_SECONDS)
    try:
        with translated_errors():
            wrapped = damaged = 0
            if _begun(engine, tables, old, new):
                wrapped, damaged = _wrapped_anew(engine, tables, (old, new), progress)
                _end(engine, tables, new)
        with KeyStore.open(url, new) as store:
            return Rewrapped(wrapped, damaged, store.forget_pages())
    finally:
        engine.dispose()


def _begun(engine: Engine, tables: Tables, old: Kek, new: Kek) -> bool:
    """Have nobody make keys from now on; False where all is done already."""
    with _transaction(engine, tables) as connection:
        known, under_way = (tables.fact(connection, name) for name in ("check", "rewrap"))
        if known == new.check:
            return False
        if known != old.check:
            raise WrongKeyError("neither of the two is the key-encryption key of the key store")
        if tables.keep(connection, "rewrap", new.check) != new.check:
            assert under_way is not None
            raise WrongKeyError(
                "the keys are being wrapped under another key-encryption key than this: go on with "
                "that one"
            )
    return True


def _wrapped_anew(
    engine: Engine, tables: Tables, keks: tuple[Kek, Kek], progress: Progress
) -> tuple[int, int]:
    with engine.connect() as connection:
        total = connection.execute(select(func.count()).select_from(tables.keys)).scalar_one()
    wrapped = damaged = done = 0
    last = b""
    while True:
        with _transaction(engine, tables) as connection:
            keys = tables.keys.c
            page = select(keys.ref, cast(keys.wrapped, LargeBinary).label("wrapped"))
            page = page.where(keys.ref > last).order_by(keys.ref).limit(BATCH)
            rows = [(bytes(row.ref), bytes(row.wrapped)) for row in connection.execute(page)]
            changed, lost = _change(connection, tables, rows, keks)
        if not rows:
            return wrapped, damaged
        wrapped, damaged, done = wrapped + changed, damaged + lost, done + len(rows)
        last = rows[-1][0]
        progress(done, total)


def _change(
    connection: Connection,
    tables: Tables,
    rows: Sequence[tuple[bytes, bytes]],
    keks: tuple[Kek, Kek],
) -> tuple[int, int]:
    """How many of a batch were wrapped anew, and how many cannot be."""
    old, new = keks
    done = {ref for ref, key in new.unwrapped(rows).items() if key is not None}
    left = old.unwrapped([row for row in rows if row[0] not in done])
    anew = [{"of": ref, "anew": new.wrapped(key)} for ref, key in left.items() if key is not None]
    if anew:
        change = update(tables.keys).where(tables.keys.c.ref == bindparam("of"))
        connection.execute(change.values(wrapped=bindparam("anew")), anew)
    return len(anew), len(left) - len(anew)


def _end(engine: Engine, tables: Tables, new: Kek) -> None:
    """From now on the new key is the store's."""
    with _transaction(engine, tables) as connection:
        facts = tables.facts
        connection.execute(update(facts).where(facts.c.name == "check").values(value=new.check))
        connection.execute(delete(facts).where(facts.c.name == "rewrap"))


@contextlib.contextmanager
def _transaction(engine: Engine, tables: Tables) -> Iterator[Connection]:
    """One that no other writer of keys is beside."""
    with engine.connect() as connection:
        is_sqlite = engine.dialect.name == "sqlite"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
        try:
            if not is_sqlite:
                connection.exec_driver_sql(f"LOCK TABLE {tables.keys.fullname} IN EXCLUSIVE MODE")
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
