from dataclasses import replace
from pathlib import Path

import orjson
from decisions import pending

from service.endings import failed_final
from service.evidence import EvidenceStore, laid_out
from service.evidence.events import header_of

EXPLANATION = b'{"status":"pending","reason":null,"values":null,"feature_names":["age"]}'
PROVENANCE = b'{"principal":"teller","completed_at":"2026-03-01T12:00:00Z"}'


def test_an_ending_keeps_everything_but_what_it_changes(tmp_path: Path) -> None:
    pieces = [b'{"explanation":', EXPLANATION, b',"provenance":', PROVENANCE, b"}"]
    payload, parts = laid_out(pieces, ["explanation", "provenance"])
    decision = replace(
        pending("request-1", tenant="north"), payload=payload, parts=parts, subjects='["k1"]'
    )
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        store.append(decision)
        record = store.record("north", "request-1")
    assert record is not None
    event = failed_final(record, "called off", outcome="rejected", actor="bob", auth_method="key")
    explanation, provenance = (
        orjson.loads(event.payload[slice(*event.parts[name])])
        for name in ("explanation", "provenance")
    )
    assert explanation == {**orjson.loads(EXPLANATION), "status": "failed", "reason": "called off"}
    assert provenance["principal"] == "teller"
    assert provenance["completed_at"] > "2026-03-01T12:00:00Z"
    assert (event.tenant, event.request_id, event.actor) == ("north", "request-1", "bob")
    assert (event.status, event.outcome, event.lane) == ("failed", "rejected", "queued")
    assert (event.received_at, event.subjects) == (record.decision.received_at, '["k1"]')
    header = orjson.loads(header_of(event, record_key=bytes(32)))
    before = orjson.loads(record.decision.header)
    same = ("model", "version", "model_digest", "library_versions", "received_at", "expires_at")
    assert {name: header[name] for name in same} == {name: before[name] for name in same}


def test_an_ending_withholds_the_reasons_of_what_was_adverse(tmp_path: Path) -> None:
    rule = {"adverse": "decline", "most": 4, "output": "bad", "sign": 1, "cohort_digest": None}
    policy = {
        "decisions": ["accept", "decline"],
        "reasons": {**rule, "codes": {"age": {"code": "R1", "text": "Age"}}},
    }
    explanation = {"status": "pending", "reason": None, "reasons": None}
    pieces = [b'{"explanation":', orjson.dumps(explanation), b',"provenance":', PROVENANCE]
    pieces += [b',"policy":', orjson.dumps(policy), b"}"]
    payload, parts = laid_out(pieces, ["explanation", "provenance", "policy"])
    decision = replace(pending("request-2"), payload=payload, parts=parts)
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        store.append(decision)
        record = store.record("default", "request-2")
    assert record is not None
    event = failed_final(record, "called off", outcome="rejected", actor="bob")
    start, end = event.parts["explanation"]
    first, second = orjson.loads(event.payload[start:end])["reasons"]
    assert first is None
    assert (second["status"], second["items"]) == ("withheld", [])
    assert second["reason"] == "the explanation failed: called off"
