"""Erasure: what goes, what is left, and what can never come back."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import ClassVar

import orjson
import pytest
from decisions import CONFLICT, START, STORED, decision, final, pending
from disposals import (
    ERASURE,
    EXPIRY,
    ORDER,
    SUBJECT,
    about,
    add_beside,
    contents,
    is_gone,
    types_of,
)
from sqlalchemy import insert, select, text

from service.disposal import (
    Erasing,
    erase,
    forget_keys,
    hold,
    of_requests,
    of_subject,
    survey,
)
from service.evidence import (
    DecisionFilter,
    ErasedError,
    EvidenceStore,
    StoreUnavailableError,
)
from service.evidence.draining import _beside
from service.evidence.events import NoteEvent, OutcomeEvent, ShadowEvent, seal
from service.evidence.exclusive import exclusively, forget_pages
from service.evidence.tables import INSERTED_COLUMNS, events
from service.uuid7 import uuid7


@pytest.fixture
def store(url: str) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(url) as opened:
        yield opened


def test_erasing_twice_is_erasing_once(store: EvidenceStore) -> None:
    store.append(decision("erased-twice"))
    keys = of_requests(store, "default", ["erased-twice", "never-known"])
    assert keys == [("default", "erased-twice")]
    assert survey(store, keys).erased == 1
    assert erase(store, keys, ERASURE).erased == 1
    assert (erase(store, keys, ERASURE).erased, erase(store, keys, ERASURE).gone) == (0, 1)
    assert types_of(store, "erased-twice") == ["decision", "erasure"]


def test_what_is_left_is_the_header_and_the_event_that_says_who_and_why(
    store: EvidenceStore,
) -> None:
    event = pending("asked-later")
    for each in (event, final(event)):
        store.append(each)
    with store.reading() as connection:
        headers = list(connection.scalars(select(events.c.header)))
    erase(store, of_requests(store, "default", ["asked-later"]), ERASURE)
    with pytest.raises(ErasedError) as found:
        store.record("default", "asked-later")
    assert (found.value.kind, found.value.actor) == ("erasure", "local")
    assert found.value.at == ERASURE.order.at.replace(microsecond=ERASURE.order.at.microsecond)
    assert orjson.loads(found.value.header)["request_id"] == "asked-later"
    assert contents(store, "asked-later") == {
        ("decision", False),
        ("explanation", False),
        ("erasure", True),
    }
    with store.reading() as connection:
        kept = list(connection.scalars(select(events.c.header)))
    assert set(headers) < set(kept)
    (said,) = (orjson.loads(header) for header in kept if header not in headers)
    assert (said["event_type"], said["actor"], said["reason"]) == ("erasure", "cli:test", "request")
    assert len(said["destroys"]) == 2
    assert said["expires_at"] is None


def test_a_subject_is_erased_from_all_his_records_and_from_nobody_elses(
    store: EvidenceStore,
) -> None:
    child = about(SUBJECT, "his-child", parent_request_id="his-record")
    for event in (about(SUBJECT, "his-record"), child, about("cd" * 32, "of-another")):
        store.append(event)
    store.append(replace(about(SUBJECT, "his-elsewhere"), tenant="elsewhere"))
    keys = of_subject(store, "default", SUBJECT)
    assert set(keys) == {("default", "his-record"), ("default", "his-child")}
    assert erase(store, keys, ERASURE).erased == 2
    assert of_subject(store, "default", SUBJECT) == []
    assert not is_gone(store, "of-another")
    assert store.record("elsewhere", "his-elsewhere") is not None


def test_records_that_explain_a_request_again_are_found_with_it(store: EvidenceStore) -> None:
    for request_id, parent in (("first-one", None), ("again", "first-one"), ("thrice", "again")):
        store.append(replace(decision(request_id), parent_request_id=parent))
    found = of_requests(store, "default", ["first-one"])
    assert found == [("default", each) for each in ("first-one", "again", "thrice")]
    assert of_requests(store, "default", ["thrice"]) == [("default", "thrice")]


def test_a_copy_that_comes_again_in_a_later_batch_is_counted_once(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.disposal.targets.BATCH", 1)
    for request_id, parent in (("first-one", None), ("again", "first-one")):
        store.append(replace(decision(request_id), parent_request_id=parent))
    keys = of_requests(store, "default", ["first-one"])
    assert erase(store, keys, ERASURE) == Erasing(erased=2)


def test_what_another_tenant_explained_again_names_no_record_of_this_one(
    store: EvidenceStore,
) -> None:
    store.append(decision("first-one"))
    store.append(decision("second-one"))
    store.append(decision("first-one", tenant="other"))
    copy = replace(decision("second-one", tenant="other"), parent_request_id="first-one")
    store.append(copy)
    assert of_requests(store, "default", ["first-one"]) == [("default", "first-one")]
    assert erase(store, [("default", "first-one")], ERASURE).erased == 1
    assert not is_gone(store, "second-one")
    assert of_requests(store, "other", ["first-one"])[1:] == [("other", "second-one")]


def test_nothing_is_said_of_an_erased_record_that_would_bring_it_back(
    store: EvidenceStore,
) -> None:
    waiting = pending("still-waiting")
    store.append(waiting)
    store.append(decision("erased-one"))
    keys = of_requests(store, "default", ["still-waiting", "erased-one"])
    erase(store, keys, ERASURE)
    assert store.append(final(waiting)) is CONFLICT
    assert not store.append_final(final(waiting)).stored
    copy = replace(decision("its-copy"), parent_request_id="erased-one")
    assert store.append(copy) is CONFLICT
    assert store.append(decision("erased-one")) is CONFLICT
    assert store.insert([seal(copy), seal(decision("unrelated"))]) == [CONFLICT, STORED]
    assert store.pending(since=START, until=EXPIRY, limit=9) == []
    note = OutcomeEvent.about(decision("erased-one"), "timeout", actor="o", completed_at=EXPIRY)
    assert store.append(note) is STORED
    for request_id, expected in (("erased-one", CONFLICT), ("unrelated", STORED)):
        said = Comment.about(decision(request_id), None, actor="a", completed_at=EXPIRY)
        assert store.append(said) is expected
        assert store.append(decision(f"besides-{request_id}")) is STORED


class Comment(NoteEvent):
    """Whatever a later release lets people say of a request."""

    __slots__ = ()
    event_type: ClassVar[str] = "comment"


@pytest.mark.parametrize("by_subject", [False, True])
def test_copies_stored_after_the_listing_are_erased_too(
    store: EvidenceStore, *, by_subject: bool
) -> None:
    store.append(about(SUBJECT, "first-one"))
    keys = of_requests(store, "default", ["first-one"])
    for request_id, parent in (("again", "first-one"), ("thrice", "again")):
        store.append(about(SUBJECT, request_id, parent_request_id=parent))
    store.append(about("cd" * 32, "of-another", parent_request_id="first-one"))
    what = replace(ERASURE, subject=SUBJECT) if by_subject else ERASURE
    wanted = [*keys, ("default", "thrice")]
    assert erase(store, wanted, what).erased == (3 if by_subject else 4)
    assert is_gone(store, "thrice")
    assert is_gone(store, "again")
    assert is_gone(store, "of-another") is not by_subject


def test_both_answers_to_a_request_are_erased_and_no_third_one_is_stored(
    store: EvidenceStore,
) -> None:
    event = about(SUBJECT, "answered-twice")
    store.append(event)
    assert add_beside(store, event) is STORED
    assert erase(store, of_subject(store, "default", SUBJECT), ERASURE).erased == 1
    assert contents(store, "answered-twice") == {("decision", False), ("erasure", True)}
    assert add_beside(store, event) is CONFLICT
    assert types_of(store, "answered-twice") == ["decision", "decision", "erasure"]
    assert of_subject(store, "default", SUBJECT) == []
    assert add_beside(store, about(SUBJECT, "of-another")) is STORED


def test_what_is_left_beside_an_erased_record_can_be_erased(store: EvidenceStore) -> None:
    event = about(SUBJECT, "answered-twice")
    store.append(event)
    add_beside(store, event)
    with store.changing() as connection:
        own = events.c.idempotency_key.not_like("beside/%")
        nothing = events.update().where(own).values(payload=None, record_key=None)
        connection.execute(nothing)
    keys = of_subject(store, "default", SUBJECT)
    assert erase(store, keys, ERASURE).erased == 1
    assert of_subject(store, "default", SUBJECT) == []
    assert erase(store, keys, ERASURE).gone == 1


def test_what_came_beside_an_erased_record_past_all_guards_goes_without_a_second_erasure(
    store: EvidenceStore,
) -> None:
    event = about(SUBJECT, "answered-twice")
    store.append(event)
    keys = of_subject(store, "default", SUBJECT)
    erase(store, keys, ERASURE)
    twin = _beside(seal(replace(event, event_id=uuid7())))
    with store.changing() as connection:
        connection.execute(insert(events), dict(zip(INSERTED_COLUMNS, twin, strict=True)))
    assert erase(store, keys, ERASURE).erased == 1
    assert types_of(store, "answered-twice") == ["decision", "erasure", "decision"]
    assert of_subject(store, "default", SUBJECT) == []


def test_what_another_version_made_of_a_decision_that_was_kept_nowhere_can_be_erased(
    store: EvidenceStore,
) -> None:
    store.append(ShadowEvent.of(about(SUBJECT, "kept-nowhere")))
    keys = of_subject(store, "default", SUBJECT)
    assert keys == of_requests(store, "default", ["kept-nowhere"])
    assert survey(store, keys).erased == 1
    assert erase(store, keys, ERASURE).erased == 1
    assert contents(store, "kept-nowhere") == {("shadow", False), ("erasure", True)}
    assert (erase(store, keys, ERASURE).erased, erase(store, keys, ERASURE).gone) == (0, 1)


def test_a_final_that_was_refused_leaves_no_bytes(store: EvidenceStore) -> None:
    waiting = pending("never-final")
    store.append(waiting)
    erase(store, of_requests(store, "default", ["never-final"]), ERASURE)
    store.append_final(final(waiting, explanation=b'{"values":[123.456]}'))
    with store.reading() as connection:
        payloads = list(connection.scalars(select(events.c.payload)))
    assert {bytes(payload) for payload in payloads if payload is not None} == {b"{}"}


def test_finals_stored_while_their_records_are_erased_never_outlive_them(
    store: EvidenceStore,
) -> None:
    waiting = [pending(f"in-hand-{i:03}", minute=i) for i in range(120)]
    for event in waiting:
        store.append(event)
    worker = Thread(target=lambda: [store.append_final(final(event)) for event in waiting])
    worker.start()
    keys = of_requests(store, "default", [event.request_id for event in reversed(waiting)])
    assert erase(store, keys, ERASURE).erased == 120
    worker.join()
    content = select(events.c.event_type).where(
        events.c.payload.is_not(None), events.c.payload != b"{}"
    )
    with store.reading() as connection:
        assert list(connection.scalars(content)) == []


def test_listings_and_samples_say_what_is_erased(store: EvidenceStore) -> None:
    waiting = pending("listed-3", minute=3)
    for event in (decision("listed-1"), decision("listed-2", minute=1), waiting, final(waiting)):
        store.append(event)
    erase(store, of_requests(store, "default", ["listed-1", "listed-3"]), ERASURE)
    assert {item.request_id: item.status for item in store.list("default").items} == {
        "listed-1": "erased",
        "listed-2": "complete",
        "listed-3": "erased",
    }
    for status, expected in (
        ("erased", ["listed-3", "listed-1"]),
        ("complete", ["listed-2"]),
        ("pending", []),
        ("failed", []),
    ):
        page = store.list("default", matching=DecisionFilter(status=status))  # type: ignore[arg-type]
        assert [item.request_id for item in page.items] == expected
    sample = store.sample(
        "default", "credit", period=(START, EXPIRY), size=9, rank=lambda each: each.encode()
    )
    assert [item.request_id for item in sample] == ["listed-2"]


def test_a_record_reads_as_erased_before_its_keys_go_and_those_go_later_all_the_same(
    store: EvidenceStore,
) -> None:
    store.append(decision("interrupted"))
    with exclusively(store) as connection:
        connection.execute(text("DROP TRIGGER events_change_rail" + _of(store)))
        connection.execute(text("UPDATE events SET encoding = 'aesgcm'"))
    keys, broken, whole = of_requests(store, "default", ["interrupted"]), KeyStub(), KeyStub()
    broken.fails = True
    with pytest.raises(StoreUnavailableError):
        erase(store, keys, replace(ERASURE, keys=broken))
    assert is_gone(store, "interrupted")
    assert contents(store, "interrupted") == {("decision", False), ("erasure", True)}
    assert hold(store, keys, ORDER).gone == 1
    whole.is_read = True
    assert not forget_keys(store, whole)
    whole.is_read = False
    assert forget_keys(store, whole)
    assert set(broken.deleted) == set(whole.deleted) != set()
    whole.deleted.clear()
    assert forget_keys(store, whole)
    assert whole.deleted == []
    assert erase(store, keys, replace(ERASURE, keys=whole)).gone == 1


class KeyStub:
    """Remembers what it was told to delete; may fail after that, as if the disk were full, or have
    readers that keep old pages.
    """

    def __init__(self) -> None:
        self.deleted: list[bytes] = []
        self.fails = self.is_read = False

    def delete(self, refs: Iterable[bytes]) -> None:
        self.deleted += refs
        if self.fails:
            raise OSError

    def forget_pages(self, *, seconds: float = 5.0) -> bool:  # noqa: ARG002
        return not self.is_read


def _of(store: EvidenceStore) -> str:
    with store.reading() as connection:
        return "" if connection.dialect.name == "sqlite" else " ON events"


def test_erased_bytes_and_their_keys_are_in_no_page_of_the_database(tmp_path: Path) -> None:
    secret = b"jane.doe@example.org 4111111111111111 "
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        for i in range(30):
            padding = secret * (1 if i % 3 else 400)
            store.append(decision(f"with-secret-{i}", answer=b'{"x":"%s"}' % padding))
        with store.reading() as connection:
            planted = [secret, *connection.scalars(select(events.c.record_key))]
        assert all(found_in(tmp_path, each) for each in planted)
        erase(
            store, of_requests(store, "default", [f"with-secret-{i}" for i in range(30)]), ERASURE
        )
        assert forget_pages(store)
        assert not any(found_in(tmp_path, each) for each in planted)


def test_a_reader_that_keeps_the_log_from_being_cut_is_told_of(tmp_path: Path) -> None:
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        store.append(decision("read-meanwhile"))
        with store.reading() as reader:
            reader.exec_driver_sql("BEGIN")
            reader.execute(select(events.c.event_id)).all()
            erase(store, of_requests(store, "default", ["read-meanwhile"]), ERASURE)
            assert not forget_pages(store, seconds=0.1)
            reader.exec_driver_sql("COMMIT")
        assert forget_pages(store)


def found_in(directory: Path, planted: bytes) -> bool:
    return any(planted in file.read_bytes() for file in directory.glob("evidence.db*"))
