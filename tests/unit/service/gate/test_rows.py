"""Which stored decisions stand for a request that may be looked at."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from decisions import decision

from service.evidence import EvidenceStore, Record
from service.gate.rows import may_be_used


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        store.append(decision("request-1"))
        found = store.record("default", "request-1")
        assert found is not None
        yield replace(found, decision=replace(found.decision, expires_at=None))


def test_a_request_of_its_own_is_used(record: Record) -> None:
    assert may_be_used(record, datetime.now(UTC))


def test_what_repeats_another_requests_rows_is_not(record: Record) -> None:
    again = replace(record, decision=replace(record.decision, parent_request_id="request-0"))
    assert not may_be_used(again, datetime.now(UTC))


def test_what_has_expired_or_is_in_quarantine_is_not(record: Record) -> None:
    now = datetime.now(UTC)
    old = replace(record, decision=replace(record.decision, expires_at=now - timedelta(days=1)))
    assert not may_be_used(old, now)
    assert may_be_used(replace(old, hold="hold"), now)
    assert not may_be_used(replace(record, hold="quarantine"), now)
