"""In which order rows were committed, so that each is put into its log once and none is missed.

SQLite has one writer at a time, so the order of rowids is the order of commits. PostgreSQL commits
concurrently: there a row carries the number of its transaction, and is in order as soon as no
transaction of that number or a lower one can still commit.
"""

from sqlalchemy import Connection, inspect, text

from service.evidence.tables import SEQUENCED

TRANSACTION = "CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)"
DECIDED = "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)"
"""Transactions below have committed or never will, and the statement sees all they left."""


def lay_arrivals(connection: Connection) -> None:
    """Give each sequenced table of PostgreSQL its column `arrival`, unless it is there.

    Rows from before get the number of the transaction that adds it, which comes after theirs.
    """
    if connection.dialect.name == "sqlite":
        return
    for table in SEQUENCED:
        found = inspect(connection)
        if "arrival" not in {column["name"] for column in found.get_columns(table.name)}:
            column = f"arrival BIGINT NOT NULL DEFAULT ({TRANSACTION})"
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column}"))
        index = f"{table.name}_by_arrival"
        if index not in {known["name"] for known in found.get_indexes(table.name)}:
            columns = "(arrival, event_id)"
            connection.execute(
                text(f"CREATE INDEX IF NOT EXISTS {index} ON {table.name} {columns}")
            )
