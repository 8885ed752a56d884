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
    UniqueConstraint,
    and_,
    exists,
    func,
    literal_column,
)

SCHEMA_VERSION = 2

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
    Column("expires_us", BigInteger),
    Column("record_key", LargeBinary),
    Column("encoding", Text, nullable=False),
    # SQLite reads a row from the left: what is queried stands before the two large columns.
    Column("header", LargeBinary, nullable=False),
    Column("payload", LargeBinary),
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

BESIDE = "beside/"
"""How the key of an event begins that stands beside another of its request: see `draining`."""

IS_BESIDE = func.substr(
    events.c.idempotency_key, literal_column("1"), literal_column("7")
) == literal_column("'beside/'")

IS_LABEL = events.c.event_type == literal_column("'label'")

IS_ERASED = and_(events.c.event_type == literal_column("'decision'"), events.c.payload.is_(None))

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

# What is to be destroyed, in the order in which its time comes.
Index(
    "events_by_expiry",
    events.c.expires_us,
    events.c.event_id,
    sqlite_where=events.c.payload.is_not(None),
    postgresql_where=events.c.payload.is_not(None),
)

Index(
    "events_beside",
    events.c.tenant,
    events.c.request_id,
    sqlite_where=IS_BESIDE,
    postgresql_where=IS_BESIDE,
)

Index(
    "events_erased",
    events.c.tenant,
    events.c.received_us,
    events.c.event_id,
    sqlite_where=IS_ERASED,
    postgresql_where=IS_ERASED,
)

# Labels by the time of their decisions: which hours have new ones is read from the index alone.
Index(
    "events_labels",
    events.c.received_us,
    events.c.model,
    events.c.version,
    events.c.event_id,
    sqlite_where=IS_LABEL,
    postgresql_where=IS_LABEL,
)

INSERTED_COLUMNS = tuple(column.name for column in events.c)
"""The order of the values in a row to insert."""

# Whom a record is about, by keyed hash; a trigger fills it from events.subjects, so that an event
# stays one statement.
event_subjects = Table(
    "event_subjects",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    sqlite_with_rowid=False,
)

# What is under a hold now; the events that placed and released them say what was. kind: `hold`, or
# `quarantine`, which also keeps everybody from reading.
holds = Table(
    "holds",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What has been destroyed, with the event that says so. kind: `erasure` or `purge`; subject: empty
# for the whole record, else the keyed name of the only one whose part is gone.
erasures = Table(
    "erasures",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("erased_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# References of keys to destroy: an erasure has committed, and its keys may still be in a file.
doomed_keys = Table(
    "doomed_keys",
    metadata,
    Column("ref", LargeBinary, primary_key=True),
    sqlite_with_rowid=False,
)

SOMETHING_ERASED = (
    exists()
    .where(erasures.c.tenant == events.c.tenant, erasures.c.request_id == events.c.request_id)
    .label("is_erased")
)
"""Of a query for events: the record, or a subject's part of it, was erased or purged. Cost: one
look into the primary key.
"""

ALL_ERASED = (
    exists()
    .where(
        erasures.c.tenant == events.c.tenant,
        erasures.c.request_id == events.c.request_id,
        erasures.c.subject == literal_column("''"),
    )
    .label("is_all_erased")
)
"""Of a query for events: the whole record was erased or purged, whatever stands in it. Cost: as of
SOMETHING_ERASED.
"""

# The logs: which event has which place in which tree. Apart from the events, because an update of
# an event would write its payload again.
log_entries = Table(
    "log_entries",
    metadata,
    Column("log", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    UniqueConstraint("log", "event_id"),
    sqlite_with_rowid=False,
)

# Nodes of the trees at the heights 8, 16, 24, ... (level 1, 2, 3, ...), each as soon as its subtree
# is whole: one row for 256 entries, and no proof has to hash more than 256 rows a level.
tree_nodes = Table(
    "tree_nodes",
    metadata,
    Column("log", Text, primary_key=True),
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# Signed notes (C2SP tlog-checkpoint).
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("log", Text, primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("signed_us", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    sqlite_with_rowid=False,
)

# The access log: who read or exported what, in the log of its own.
accesses = Table(
    "accesses",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("request_id", Text),
    Column("kind", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("header", LargeBinary, nullable=False),
)

ACCESS_COLUMNS = tuple(column.name for column in accesses.c)
Index("accesses_by_time", accesses.c.at_us, accesses.c.event_id)
Index(
    "accesses_by_request",
    accesses.c.request_id,
    accesses.c.at_us,
    sqlite_where=accesses.c.request_id.is_not(None),
    postgresql_where=accesses.c.request_id.is_not(None),
)

# What the requests of an hour were like, counted in the bins of a version's baseline: each process
# that counts has rows of its own, written anew as they grow. No evidence; of an hour with few rows
# the counts tell about those rows.
drift_windows = Table(
    "drift_windows",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("started_us", BigInteger, primary_key=True, autoincrement=False),
    Column("baseline", Text, primary_key=True),
    Column("replica", Text, primary_key=True),
    Column("counts", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

Index("drift_windows_by_time", drift_windows.c.started_us)

# How the labelled decisions of an hour turned out, counted by `service.performance`. label_events
# and last_event: what was counted, by which a later look sees that there is more. digest: of the
# version's manifest, as another registry may hold another model under the same number.
performance_windows = Table(
    "performance_windows",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", Text, primary_key=True),
    Column("started_us", BigInteger, primary_key=True, autoincrement=False),
    Column("label_events", BigInteger, nullable=False),
    Column("last_event", Text, nullable=False),
    Column("counted_us", BigInteger, nullable=False),
    Column("counts", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

Index("performance_windows_by_time", performance_windows.c.started_us)

# The first complete window of a version, with which later ones are compared.
performance_references = Table(
    "performance_references",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", Text, primary_key=True),
    Column("since_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("counts", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# Reasons to retrain. standing: model, version and cause as long as the episode lasts, then NULL:
# unique, so that of all replicas one raises it.
retrain_triggers = Table(
    "retrain_triggers",
    metadata,
    Column("trigger_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("standing", Text, unique=True),
    sqlite_with_rowid=False,
)

# What became of a trigger, each at most once: `raised`, `decided` (verdict: `approved` or
# `dismissed`), `closed`. next_us: when its webhook call is due, NULL once it is done or never was.
retrain_steps = Table(
    "retrain_steps",
    metadata,
    Column("trigger_id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("verdict", Text),
    Column("note", Text),
    Column("attempts", Integer, nullable=False),
    Column("next_us", BigInteger),
    Column("sent_us", BigInteger),
    sqlite_with_rowid=False,
)

Index(
    "retrain_steps_due",
    retrain_steps.c.next_us,
    sqlite_where=retrain_steps.c.next_us.is_not(None),
    postgresql_where=retrain_steps.c.next_us.is_not(None),
)

SEQUENCED = (events, accesses)
"""What is put into logs. On SQLite rowids say in which order rows were committed; on PostgreSQL a
column `arrival` that these definitions leave out (see `service.evidence.arrivals`)."""
