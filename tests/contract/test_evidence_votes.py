"""Votes about a record: as many as are cast, the last of each principal counts."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import orjson
from decisions import STORED, decision, final, pending
from sqlalchemy import create_engine, select

from service.evidence import (
    DecisionEvent,
    EvidenceStore,
    FeedbackEvent,
    LabelEvent,
    StoredVote,
    VoteEvent,
    laid_out,
    votes_of,
)
from service.evidence.boxes import refs_of
from service.evidence.sections import sections_about
from service.evidence.tables import events
from service.keystore import Kek, KeyStore


def vote(
    about: DecisionEvent,
    value: object,
    *,
    actor: str = "ann",
    kind: type[VoteEvent] = FeedbackEvent,
) -> VoteEvent:
    name = b"rating" if kind is FeedbackEvent else b"labels"
    payload, parts = laid_out([b'{"%s":' % name, orjson.dumps(value), b"}"], [name.decode()])
    return kind(
        template=about.template,
        request_id=about.request_id,
        received_at=about.received_at,
        completed_at=about.received_at + timedelta(days=1),
        payload=payload,
        parts=parts,
        tenant=about.tenant,
        actor=actor,
    )


def cast(url: str, about: DecisionEvent, *votes: VoteEvent) -> list[tuple[str, dict[str, object]]]:
    with EvidenceStore.open(url) as store:
        if store.get(about.tenant, about.request_id) is None:
            store.append(about)
        for event in votes:
            assert store.append(event) is STORED
        stored = store.get(about.tenant, about.request_id)
        assert stored is not None
        return [_said(found) for found in votes_of(store, stored)]


def _said(found: StoredVote) -> tuple[str, dict[str, object]]:
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
        engine = create_engine(url)
        with engine.connect() as connection:
            rows = connection.execute(select(events)).all()
        engine.dispose()
        for row in rows:
            if row.event_type != "decision":
                refs = refs_of(row)
                keys.destroy(refs[n] for n in sections_about(subjects, "anna", len(refs)))
        assert [orjson.loads(found.payload) for found in votes_of(store, stored)] == [
            {"labels": [None, "bad"]},
            {"rating": 2, "comment": None},
        ]
        for row in rows:
            if row.event_type != "decision":
                keys.destroy(refs_of(row))
        assert votes_of(store, stored) == []
