"""A database of schema version 1, which knew no logs, is taken over as it is."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from decisions import change, decision, drop_rails
from sqlalchemy import create_engine, inspect, text

from service.evidence import EvidenceStore
from service.evidence.events import microseconds
from service.evidence.rails import missing_rails

OTHERS = (
    *("log_entries", "tree_nodes", "checkpoints", "accesses"),
    *("event_subjects", "holds", "erasures"),
)


def as_version_1(url: str) -> None:
    drop_rails(url)
    for statement in (
        *(f"DROP TABLE {table}" for table in OTHERS),
        "DROP INDEX events_by_expiry",
        "DROP INDEX events_erased",
        "ALTER TABLE events DROP COLUMN expires_us",
        "ALTER TABLE events ADD COLUMN seq BIGINT",
        "ALTER TABLE events ADD COLUMN leaf TEXT",
        "UPDATE meta SET value = '1' WHERE name = 'schema_version'",
    ):
        change(url, statement)


def test_records_and_when_they_expire_are_kept(url: str) -> None:
    event = decision()
    with EvidenceStore.open(url) as store:
        store.append(event)
    as_version_1(url)
    with ThreadPoolExecutor(4) as threads:
        for opened in threads.map(lambda _: EvidenceStore.open(url), range(4)):
            opened.close()
    with EvidenceStore.open(url) as store:
        found = store.get("default", event.request_id)
        assert found is not None
        assert found.payload == event.payload
        store.append(decision("after-upgrade"))
    expected = microseconds(event.received_at + event.template.retention)
    engine = create_engine(url)
    with engine.connect() as connection:
        expiries = list(connection.execute(text("SELECT expires_us FROM events")).scalars())
        assert abs(expiries[0] - expected) <= timedelta(milliseconds=1) / timedelta(microseconds=1)
        assert set(OTHERS) <= set(inspect(connection).get_table_names())
        assert missing_rails(connection) == set()
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events",
        "UPDATE events SET header = payload",
        "UPDATE events SET tenant = 'other'",
        "UPDATE events SET payload = header",
        "INSERT INTO log_entries VALUES ('evidence', 0, 'e', 'l'); DELETE FROM log_entries",
    ],
)
def test_careless_statements_are_refused(url: str, statement: str) -> None:
    with EvidenceStore.open(url) as store:
        store.append(decision())
    first, *more = statement.split("; ")
    if more:
        change(url, first)
    with pytest.raises(Exception, match="evidence is not changed"):
        change(url, (more or [first])[0])


def test_erasing_passes(url: str) -> None:
    with EvidenceStore.open(url) as store:
        store.append(decision())
    change(url, "UPDATE events SET payload = NULL, record_key = NULL")
