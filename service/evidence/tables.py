"""The evidence database: its tables, one definition for SQLite and PostgreSQL."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    literal_column,
)

SCHEMA_VERSION = 1

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("idempotency_key", Text, unique=True),
    Column("event_type", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("parent_request_id", Text),
    Column("actor", Text, nullable=False),
    Column("subjects", Text),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", Text),
    Column("lane", Text),
    Column("received_us", BigInteger, nullable=False),
    Column("record_key", LargeBinary),
    Column("encoding", Text, nullable=False),
    # SQLite reads a row from the left: what is queried stands before the two large columns.
    Column("header", LargeBinary, nullable=False),
    Column("payload", LargeBinary),
    Column("seq", BigInteger, unique=True),
    Column("leaf", LargeBinary),
)

# Model and status at the end let a filtered listing skip rows without visiting the table.
Index(
    "events_by_time",
    events.c.tenant,
    events.c.event_type,
    events.c.received_us,
    events.c.event_id,
    events.c.model,
    events.c.status,
)

# In the text of a query, not as a parameter: only so does a planner see that an index is enough.
IS_PENDING = events.c.status == literal_column("'pending'")

Index(
    "events_pending",
    events.c.received_us,
    events.c.tenant,
    events.c.request_id,
    sqlite_where=IS_PENDING,
    postgresql_where=IS_PENDING,
)
Index(
    "events_by_parent",
    events.c.tenant,
    events.c.event_type,
    events.c.parent_request_id,
    events.c.received_us,
    events.c.event_id,
    sqlite_where=events.c.parent_request_id.is_not(None),
    postgresql_where=events.c.parent_request_id.is_not(None),
)

INSERTED_COLUMNS = tuple(column.name for column in events.c if column.name not in {"seq", "leaf"})
"""The order of the values in a row to insert; seq and leaf are the sequencer's to fill."""
