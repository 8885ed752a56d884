import hashlib
import hmac
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evidence import (
    DecisionEvent,
    FinalEvent,
    HeaderConstants,
    HeaderTemplate,
    final_payload,
    laid_out,
)
from service.evidence.events import commitment, header_of, idempotency_key, seal
from service.evidence.tables import INSERTED_COLUMNS

Decide = Callable[..., DecisionEvent]
KEY = bytes(range(32))
Pieces = list[tuple[bytes, bytes]]


@given(st.lists(st.tuples(st.binary(), st.binary(min_size=1))), st.binary(), st.integers(0, 9))
def test_ranges_cut_the_named_pieces_out(pairs: Pieces, last: bytes, start: int) -> None:
    names = [f"part {i}" for i in range(len(pairs))]
    pieces = [piece for pair in pairs for piece in pair]
    laid, ranges = laid_out([*pieces, last], names, start=start)
    assert laid == b"".join([*pieces, last])
    whole = bytes(start) + laid
    cut = {name: whole[first:end] for name, (first, end) in ranges.items()}
    assert cut == {name: value for name, (_, value) in zip(names, pairs, strict=True)}


def test_a_piece_without_its_name_is_refused() -> None:
    with pytest.raises(ValueError, match="2 pieces around 1 names"):
        laid_out([b"{", b"}"], ["answer"])


def test_parts_may_nest(decide: Decide) -> None:
    payload, ranges = laid_out([b'{"answer":', b'{"explanation":{"x":1}}', b"}"], ["answer"])
    start = payload.index(b'{"x"')
    event = decide(payload=payload, parts={**ranges, "explanation": (start, start + 7)})
    header = orjson.loads(header_of(event, record_key=KEY))
    first, last = header["payload"]["parts"]["explanation"]
    assert payload[first:last] == b'{"x":1}'


@pytest.mark.parametrize("part", [(-1, 2), (2, 2), (3, 2), (0, 10_000)])
def test_a_part_outside_the_payload_is_refused(decide: Decide, part: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="part answer"):
        decide(parts={"answer": part})


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 1, tzinfo=UTC).replace(tzinfo=None),
        datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=2))),
    ],
)
@pytest.mark.parametrize("name", ["received_at", "completed_at"])
def test_a_time_that_is_not_utc_is_refused(decide: Decide, name: str, moment: datetime) -> None:
    with pytest.raises(ValueError, match="UTC"):
        decide(**{name: moment})


def test_the_header_has_every_constant_and_every_field_of_the_event(
    decide: Decide, constants: HeaderConstants
) -> None:
    event = decide(actor="teller", auth_method="api_key", parent_request_id="request-0")
    header = orjson.loads(header_of(event, record_key=KEY))
    own = {
        "schema_version": "1",
        "event_id": event.event_id,
        "event_type": "decision",
        "request_id": "request-1",
        "parent_request_id": "request-0",
        "tenant": "default",
        "actor": "teller",
        "auth_method": "api_key",
        "received_at": "2026-03-01T12:00:00Z",
        "completed_at": "2026-03-01T12:00:00.003000Z",
        "clock_skewed": False,
        "expires_at": "2026-08-31T12:00:00Z",
        "status": "complete",
        "lane": "inline",
        "payload": {
            "commitment": hmac.new(KEY, event.payload, hashlib.sha256).hexdigest(),
            "size": len(event.payload),
            "parts": {name: list(part) for name, part in event.parts.items()},
        },
    }
    shared = {field.name: getattr(constants, field.name) for field in fields(constants)}
    assert header == own | shared
    assert not own.keys() & shared.keys()


def test_the_header_shows_nothing_of_the_payload_and_the_subjects(decide: Decide) -> None:
    header = header_of(decide(subjects='["k-of-anna"]'), record_key=KEY)
    assert b"age" not in header
    assert b"anna" not in header


def test_a_clock_that_went_back_is_flagged(decide: Decide) -> None:
    event = decide(completed_at=datetime(2026, 3, 1, 11, 59, tzinfo=UTC))
    assert orjson.loads(header_of(event, record_key=KEY))["clock_skewed"] is True


def test_the_commitment_is_hmac_sha256() -> None:
    # RFC 4231, test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert commitment(b"Jefe", b"what do ya want for nothing?") == expected


def test_another_payload_or_key_has_another_commitment() -> None:
    assert commitment(KEY, b"{}") != commitment(KEY, b"{ }")
    assert commitment(KEY, b"{}") != commitment(KEY[::-1], b"{}")


def test_a_row_has_a_value_for_each_inserted_column(decide: Decide) -> None:
    event = decide(subjects="[null]")
    row = dict(zip(INSERTED_COLUMNS, seal(event), strict=True))
    assert row["received_us"] == 1_772_366_400_000_000
    assert row["idempotency_key"] == "decision/default/request-1"
    assert row["payload"] is event.payload
    assert (row["subjects"], row["encoding"], row["version"]) == ("[null]", "json", 3)


def test_every_record_has_its_own_key(decide: Decide) -> None:
    event = decide()
    key = INSERTED_COLUMNS.index("record_key")
    assert seal(event)[key] != seal(event)[key]


def test_no_two_pairs_share_an_idempotency_key() -> None:
    assert idempotency_key("a", "b") != idempotency_key("a/b", "")
    assert idempotency_key("a/b", "c") == "decision/a/b/c"


def test_events_have_different_ids_unless_told(decide: Decide) -> None:
    assert decide().event_id != decide().event_id


def test_a_template_knows_its_model(constants: HeaderConstants) -> None:
    template = HeaderTemplate.of(constants, retention=timedelta(days=1))
    assert (template.model, template.version) == ("credit", 3)


@pytest.fixture
def final(decide: Decide) -> FinalEvent:
    decision = decide(status="pending", lane="queued", tenant="north")
    payload, parts = final_payload(b'{"values":[0.2]}', b'{"worker":"w"}')
    return FinalEvent(
        template=decision.template,
        tenant=decision.tenant,
        request_id=decision.request_id,
        actor="w",
        received_at=decision.received_at,
        completed_at=decision.completed_at + timedelta(seconds=1),
        status="failed",
        outcome="dead",
        payload=payload,
        parts=parts,
    )


def test_a_final_is_an_event_of_its_own(final: FinalEvent) -> None:
    row = dict(zip(INSERTED_COLUMNS, seal(final), strict=True))
    assert row["idempotency_key"] == "explanation/north/request-1"
    assert (row["event_type"], row["status"], row["lane"]) == ("explanation", "failed", "queued")
    header = orjson.loads(header_of(final, record_key=KEY))
    assert header["event_type"] == "explanation"
    assert header["library_versions"] == {"xgboost": "3.2.0"}
    first, last = header["payload"]["parts"]["explanation"]
    assert final.payload[first:last] == b'{"values":[0.2]}'
    assert header["payload"]["commitment"] == commitment(KEY, final.payload)


def test_an_outcome_is_the_same_event_each_time_and_short(final: FinalEvent) -> None:
    row = dict(zip(INSERTED_COLUMNS, seal(final.counted()), strict=True))
    assert row["idempotency_key"] == "outcome/north/request-1"
    assert (row["event_type"], row["status"], row["payload"]) == ("outcome", "dead", b"{}")
    assert row["event_id"] == final.counted().event_id != final.event_id
    header = orjson.loads(header_of(final.counted(), record_key=KEY))
    assert (header["model"], header["version"]) == ("credit", 3)
    assert header["model_digest"] == "sha256:" + "0" * 64
    assert "library_versions" not in header
    assert header["payload"]["commitment"] == commitment(KEY, b"{}")
    whole = orjson.loads(header_of(final, record_key=KEY))
    assert {name: header[name] for name in ("received_at", "completed_at", "expires_at")} == {
        name: whole[name] for name in ("received_at", "completed_at", "expires_at")
    }


def test_a_template_is_found_again_in_a_header(decide: Decide) -> None:
    event = decide()
    header = header_of(event, record_key=KEY)
    assert HeaderTemplate.from_header(header) == event.template
    changed = HeaderTemplate.from_header(header, method="exact", engine=None)
    document = orjson.loads(b"{" + changed.constant)
    assert (document["method"], document["engine"]) == ("exact", None)
    assert document | {"method": "tree_interventional", "engine": "table"} == orjson.loads(
        b"{" + event.template.constant
    )
