"""Votes about a record: as many as are cast, the last of each principal counts."""

from dataclasses import replace
from pathlib import Path

import orjson
from decisions import STORED, decision, final, pending
from disposals import ERASURE
from tellings import told_later

from service.disposal import erase, of_subject
from service.evidence import (
    DecisionEvent,
    EvidenceStore,
    FeedbackEvent,
    LabelEvent,
    StoredRepeatable,
    VoteEvent,
    laid_out,
    votes_of,
)
from service.keystore import Kek, KeyStore


def vote(
    about: DecisionEvent,
    value: object,
    *,
    actor: str = "ann",
    kind: type[VoteEvent] = FeedbackEvent,
) -> VoteEvent:
    name = "rating" if kind is FeedbackEvent else "labels"
    return told_later(about, kind, {name: value}, actor=actor)


def cast(url: str, about: DecisionEvent, *votes: VoteEvent) -> list[tuple[str, dict[str, object]]]:
    with EvidenceStore.open(url) as store:
        if store.get(about.tenant, about.request_id) is None:
            store.append(about)
        for event in votes:
            assert store.append(event) is STORED
        stored = store.get(about.tenant, about.request_id)
        assert stored is not None
        return [_said(found) for found in votes_of(store, stored)]


def _said(found: StoredRepeatable) -> tuple[str, dict[str, object]]:
    return found.actor, orjson.loads(found.payload)


def test_the_last_vote_of_each_principal_and_kind_counts(url: str) -> None:
    about = decision("request-one")
    found = cast(
        url,
        about,
        vote(about, 1),
        vote(about, 5, actor="bob"),
        vote(about, ["good"], kind=LabelEvent),
        vote(about, 4),
        vote(about, ["bad"], kind=LabelEvent),
    )
    assert found == [("ann", {"rating": 4}), ("bob", {"rating": 5}), ("ann", {"labels": ["bad"]})]


def test_the_same_event_again_is_stored_once(url: str) -> None:
    about = decision("request-one")
    again = vote(about, 3)
    assert cast(url, about, again, vote(about, 4), again) == [("ann", {"rating": 4})]


def test_votes_about_other_records_and_tenants_are_not_found(url: str) -> None:
    about = decision("request-one")
    twin = replace(decision("request-two"), received_at=about.received_at)
    other = replace(about, tenant="other", event_id=decision().event_id)
    cast(url, twin, vote(twin, 1))
    cast(url, other, vote(other, 2))
    assert cast(url, about) == []
    assert cast(url, about, vote(about, 3)) == [("ann", {"rating": 3})]


def test_votes_change_neither_the_record_nor_what_is_pending(url: str) -> None:
    about = pending("request-waits")
    with EvidenceStore.open(url) as store:
        store.append(about)
        before = store.record("default", "request-waits")
        store.append(vote(about, 2))
        assert store.record("default", "request-waits") == before
        store.append_final(final(about))
        listed = store.list("default").items
    assert [(item.request_id, item.status) for item in listed] == [("request-waits", "complete")]


def forget_subject(subject: str, store: EvidenceStore) -> None:
    found = of_subject(store, "default", subject)
    assert erase(store, found, replace(ERASURE, subject=subject)).erased == 1


def test_of_an_erased_subject_labels_and_shared_comments_go(url: str, tmp_path: Path) -> None:
    subjects = orjson.dumps(["anna", "bert"]).decode()
    about = replace(decision("request-one"), subjects=subjects)
    labelled = replace(vote(about, ["good", "bad"], kind=LabelEvent), subjects=subjects)
    pieces = [b'{"rating":', b"2", b',"comment":', b'"anna is cross"', b"}"]
    payload, parts = laid_out(pieces, ["rating", "comment"])
    rated = replace(vote(about, 2), subjects=subjects, payload=payload, parts=parts)
    with (
        KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        for event in (about, labelled, rated):
            assert store.append(event) is STORED
        stored = store.get("default", "request-one")
        assert stored is not None
        assert [orjson.loads(found.payload) for found in votes_of(store, stored)] == [
            {"labels": ["good", "bad"]},
            {"rating": 2, "comment": "anna is cross"},
        ]
        forget_subject("anna", store)
        assert [orjson.loads(found.payload) for found in votes_of(store, stored)] == [
            {"labels": [None, "bad"]},
            {"rating": 2, "comment": None},
        ]
        forget_subject("bert", store)
        assert votes_of(store, stored) == []
