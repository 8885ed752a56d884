import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from decisions import (
    ANNA,
    BERT,
    CONFLICT,
    STORED,
    about_two,
    change,
    decision,
    drop_rails,
    final,
    pending,
)
from sqlalchemy import create_engine, insert, select, update
from structlog.testing import capture_logs

from service.evidence import (
    ErasedError,
    EvidenceError,
    EvidenceLog,
    EvidenceStore,
    OutcomeEvent,
    Record,
    StoreUnavailableError,
    UnreadablePayloadError,
    UnreadableRecord,
)
from service.evidence.boxes import refs_of, without
from service.evidence.sections import sections_about
from service.evidence.tables import erasures, events
from service.keystore import Kek, KeyStore


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        yield keys


@asynccontextmanager
async def opened(url: str, keys: KeyStore | None) -> AsyncIterator[EvidenceLog]:
    log = await EvidenceLog.open(url, keys=keys)
    try:
        yield log
    finally:
        await log.close()


def note_erasure(url: str, request_id: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        named = {"tenant": "default", "request_id": request_id, "subject": ""}
        said = {"kind": "erasure", "event_id": "e", "erased_us": 0}
        connection.execute(insert(erasures).values(named | said))
    engine.dispose()


def contents_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def row_of(url: str, event_id: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
    engine = create_engine(url)
    with engine.connect() as connection:
        row = connection.execute(select(events).where(events.c.event_id == event_id)).one()
    engine.dispose()
    return row


async def test_a_payload_is_stored_unreadable_and_comes_back_as_it_was(
    url: str, keys: KeyStore, tmp_path: Path
) -> None:
    event = decision(answer=b'{"values":["eve@example.org"]}')
    async with opened(url, keys) as log:
        assert await log.append(event) is STORED
        found = await log.get("default", event.request_id)
        files = contents_of(tmp_path)
    assert files
    assert not any(b"eve@example.org" in content for content in files)
    assert found is not None
    assert (found.payload, found.parts) == (event.payload, event.parts)
    row = row_of(url, event.event_id)
    assert row.encoding == "aesgcm"
    assert b"eve@example.org" not in row.payload
    assert len(row.record_key) == 16
    (key,) = keys.keys([row.record_key]).values()
    assert found.record_key == key
    said = orjson.loads(row.header)["payload"]
    assert said["commitment"] == hmac.new(key, event.payload, hashlib.sha256).hexdigest()
    assert said["size"] == len(event.payload)


async def test_the_same_request_again_is_a_conflict(url: str, keys: KeyStore) -> None:
    event = decision("request-1")
    async with opened(url, keys) as log:
        assert await log.append(event) is STORED
        assert await log.append(event) is STORED
        assert await log.append(decision("request-1")) is CONFLICT


async def test_facts_without_content_take_no_key(url: str, keys: KeyStore) -> None:
    event = OutcomeEvent.about(decision(), "timeout", actor="x", completed_at=datetime.now(UTC))
    async with opened(url, keys) as log:
        await log.append(event)
    assert row_of(url, event.event_id).encoding == "json"


async def test_rows_of_before_stay_readable_beside_encrypted_ones(url: str, keys: KeyStore) -> None:
    old, new = decision("request-1"), pending("request-2")
    async with opened(url, None) as log:
        await log.append(old)
    async with opened(url, keys) as log:
        await log.append(new)
        await log.append_final(final(new))
        keys_of_both = [("default", "request-1"), ("default", "request-2")]
        first, second = await log.records(keys_of_both)
    assert first.decision.payload == old.payload
    assert second.part("explanation") == b'{"values":[0.2]}'
    assert second.part("instances") == new.payload[slice(*new.parts["instances"])]


async def test_without_the_key_store_an_encrypted_payload_says_so(url: str, keys: KeyStore) -> None:
    async with opened(url, keys) as log:
        await log.append(decision("request-1"))
    async with opened(url, None) as log:
        with pytest.raises(UnreadablePayloadError, match="no key store"):
            await log.get("default", "request-1")
        assert len((await log.list("default")).items) == 1


async def test_the_keys_of_another_database_are_refused(
    url: str, keys: KeyStore, tmp_path: Path
) -> None:
    EvidenceStore.open(url, keys=keys).close()
    with (
        KeyStore.open(f"sqlite:///{tmp_path}/others.db", Kek(bytes(32))) as others,
        pytest.raises(EvidenceError, match="not the one this database"),
    ):
        EvidenceStore.open(url, keys=others)
    EvidenceStore.open(url, keys=keys).close()


async def test_a_payload_moved_to_another_event_does_not_open(url: str, keys: KeyStore) -> None:
    with EvidenceStore.open(url, keys=keys) as store:
        first, second = decision("request-1"), decision("request-2")
        store.append(first)
        store.append(second)
        taken = row_of(url, second.event_id)
        drop_rails(url)
        engine = create_engine(url)
        with engine.begin() as connection:
            changed = {"payload": taken.payload, "record_key": taken.record_key}
            moved = update(events).where(events.c.event_id == first.event_id)
            connection.execute(moved.values(changed))
        engine.dispose()
        with pytest.raises(UnreadablePayloadError, match="was changed"):
            store.get("default", "request-1")
        assert store.get("default", "request-2") is not None


@pytest.mark.parametrize("broken", [b"", b"\0\0", b"\0\0\0\xff" + bytes(20), bytes(20)])
async def test_a_damaged_payload_is_unreadable_not_erased(
    broken: bytes, url: str, keys: KeyStore
) -> None:
    with EvidenceStore.open(url, keys=keys) as store:
        event = decision("request-1")
        store.append(event)
        drop_rails(url)
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(update(events).values(payload=broken))
        engine.dispose()
        with pytest.raises(UnreadablePayloadError):
            store.get("default", "request-1")


async def test_a_destroyed_key_leaves_the_header(url: str, keys: KeyStore) -> None:
    event = decision("request-1")
    async with opened(url, keys) as log:
        await log.append(event)
        await log.append(decision("request-2"))
        row = row_of(url, event.event_id)
        note_erasure(url, "request-1")
        keys.destroy(refs_of(row))
        with pytest.raises(ErasedError) as erased:
            await log.record("default", "request-1")
        assert erased.value.header == row.header
        with pytest.raises(ErasedError):
            await log.get("default", "request-1")
        both = await log.records([("default", "request-1"), ("default", "request-2")])
        assert [record.decision.request_id for record in both] == ["request-2"]


async def test_a_key_that_is_missing_though_nobody_erased_the_record_is_no_erasure(
    url: str, keys: KeyStore
) -> None:
    """As after an old copy of the key store was put back."""
    whole, parted = decision("request-1"), about_two("request-2")
    async with opened(url, keys) as log:
        for event in (whole, parted, decision("request-3")):
            await log.append(event)
        keys.destroy(refs_of(row_of(url, whole.event_id)))
        keys.destroy(refs_of(row_of(url, parted.event_id))[1:2])
        for name in ("request-1", "request-2"):
            with pytest.raises(UnreadablePayloadError, match="key missing"):
                await log.record("default", name)
            with pytest.raises(UnreadablePayloadError, match="key missing"):
                await log.get("default", name)
        first, second, third = await log.records([("default", f"request-{n}") for n in (1, 2, 3)])
    assert isinstance(first, UnreadableRecord)
    assert isinstance(second, UnreadableRecord)
    assert (first.key, first.is_pending) == (("default", "request-1"), False)
    assert "key missing" in first.reason
    assert isinstance(third, Record)


async def test_a_payload_taken_away_is_erased_encrypted_or_not(url: str, keys: KeyStore) -> None:
    async with opened(url, None) as log:
        await log.append(decision("request-1"))
    async with opened(url, keys) as log:
        await log.append(decision("request-2"))
        change(url, "UPDATE events SET payload = NULL, record_key = NULL")
        for name in ("request-1", "request-2"):
            with pytest.raises(ErasedError):
                await log.get("default", name)


async def test_a_payload_about_two_comes_back_as_it_was(url: str, keys: KeyStore) -> None:
    event = about_two()
    async with opened(url, keys) as log:
        assert await log.append(event) is STORED
        found = await log.get("default", "request-1")
    assert found is not None
    assert (found.payload, found.parts) == (event.payload, event.parts)
    said = orjson.loads(found.header)["payload"]
    assert said["commitment"] is None
    assert len(said["sections"]) == 4


def test_sealed_twice_a_payload_about_two_has_the_same_keys(url: str, keys: KeyStore) -> None:
    """As when the spool takes it too while the store has it: else one copy outlives an erasure."""
    with EvidenceStore.open(url, keys=keys) as store:
        sealed = store.sealer.seal(about_two())
        (first,), _ = store.sealer.rows([sealed])
        (second,), _ = store.sealer.rows([sealed])
        assert first == second
        other = store.sealer.seal(about_two())
        assert store.sealer.rows([other])[0] != [first]


async def test_one_of_two_subjects_erased_leaves_the_other(url: str, keys: KeyStore) -> None:
    event = about_two()
    assert event.subjects is not None
    with EvidenceStore.open(url, keys=keys) as store:
        store.append(event)
        row = row_of(url, event.event_id)
        refs = refs_of(row)
        gone = sections_about(event.subjects, ANNA, len(refs))
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(update(events).values(payload=without(row, gone)))
        engine.dispose()
        keys.destroy(refs[number] for number in gone)
        found = store.get("default", "request-1")
        assert found is not None
        assert found.part("instances") == b'[null,{"age":33},null]'
        assert orjson.loads(found.part("answer"))["predictions"] == [None, {"label": "bert"}, None]
        assert orjson.loads(found.part("provenance"))["seed"] == [None, 330, None]
        assert found.part("fingerprint") == b"null"
        note_erasure(url, "request-1")
        keys.destroy(refs[number] for number in sections_about(event.subjects, BERT, len(refs)))
        with pytest.raises(ErasedError):
            store.get("default", "request-1")


async def test_what_is_left_of_an_erased_subject_confirms_no_guess(
    url: str, keys: KeyStore
) -> None:
    """Whoever holds every key that is left and knows all but Anna's rows finds them in nothing."""
    event = about_two()
    assert event.subjects is not None
    with EvidenceStore.open(url, keys=keys) as store:
        store.append(event)
        row = row_of(url, event.event_id)
        (whole,) = store.sealer.open([row])
        assert whole is not None
        secret = [section.text for section in whole.sections if section is not None]
        gone = sections_about(event.subjects, ANNA, len(secret))
        keys.destroy(refs_of(row)[number] for number in gone)
        (left,) = store.sealer.open([row], erased=[row.event_id])
    assert left is not None
    said = [section["commitment"] for section in orjson.loads(row.header)["payload"]["sections"]]
    surviving = [section.key for section in left.sections if section is not None]
    guesses = [event.payload, *secret, b'{"age":4711}', *event.payload.split(b",")]
    confirmed = {
        guess
        for guess in guesses
        for key in surviving
        if hmac.new(key, guess, hashlib.sha256).hexdigest() in said
    }
    assert confirmed == {secret[number] for number in range(len(secret)) if number not in gone}
    assert not any(b"471" in text or b"anna" in text or b"f00" in text for text in confirmed)
    assert b"age" not in row.header
    assert b":4711" not in row.header
    assert b'"size":%d,' % len(event.payload) not in row.header


async def test_what_cannot_be_cut_is_kept_whole_and_said(url: str, keys: KeyStore) -> None:
    event = about_two()
    spaced = event.payload.replace(b'{"age":33}', b'{"age": 33}')
    event = replace(event, payload=spaced, parts={})
    async with opened(url, keys) as log:
        with capture_logs() as lines:
            await log.append(event)
        found = await log.get("default", "request-1")
    assert found is not None
    assert found.payload == spaced
    assert len(refs_of(row_of(url, event.event_id))) == 1
    assert [line["event"] for line in lines] == ["payload_not_cut"]
    assert "33" not in str(lines[0]["reason"])


async def test_a_log_without_keys_is_not_writable(url: str, keys: KeyStore) -> None:
    async with opened(url, keys) as log:
        assert await log.is_writable()
        keys.close()
        assert not await log.is_writable()
        with pytest.raises(StoreUnavailableError, match="key store"):
            await log.append(decision("request-1"))


async def test_an_event_whose_keys_are_missing_fails_alone(url: str, keys: KeyStore) -> None:
    with EvidenceStore.open(url, keys=keys) as store:
        sealed = [
            store.sealer.seal(event)
            for event in (decision("request-1"), about_two("request-2"), decision("request-3"))
        ]
        keys.close()
        first, second, third = store.store(sealed)
        assert (first, third) == (STORED, STORED)
        assert isinstance(second, StoreUnavailableError)
        with pytest.raises(StoreUnavailableError, match="key store"):
            store.append(decision("request-4"))


async def test_pending_requests_tell_what_their_job_needs_while_encrypted(
    url: str, keys: KeyStore
) -> None:
    ask = b'{"top":3,"method":"lime","priority":"low","answer_by":null,"is_counted":false}'
    async with opened(url, None) as log:
        await log.append(pending("request-1", ask=ask))
    async with opened(url, keys) as log:
        await log.append(pending("request-2", ask=ask))
        await log.append(pending("request-3"))
        found = await log.pending(
            since=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2027, 1, 1, tzinfo=UTC), limit=9
        )
    facts = [(one.request_id, one.priority, one.method, one.was_counted) for one in found]
    assert facts == [
        ("request-1", "low", "lime", False),
        ("request-2", "low", "lime", False),
        ("request-3", "high", None, True),
    ]
