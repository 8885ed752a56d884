"""What verify.py refuses before it looks at entries: what is too much, unknown or elsewhere."""

import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from reference_log import (
    Bundle,
    ReferenceLog,
)

from service import verify
from service.verify import CONSISTENT, verify_file

SIZE = 13


def reference(size: int = SIZE) -> ReferenceLog:
    log = ReferenceLog()
    for i in range(size):
        log.add(f'{{"age":{30 + i},"name":"Zoë"}}')
    return log


def verdict_on(content: bytes, tmp_path: Path, **asked: str | None) -> dict[str, Any]:
    path = tmp_path / "bundle"
    path.write_bytes(content)
    return verify_file(path, **asked)


def first_problem(verdict: dict[str, Any]) -> tuple[int | None, str]:
    assert verdict["verdict"] == "failed"
    return verdict["findings"][0]["seq"], verdict["findings"][0]["problem"]


def proof_of(log: ReferenceLog, seqs: list[int]) -> dict[str, Any]:
    bundle = log.bundle(seqs)
    own = {name: bundle.manifest[name] for name in ("vkey", "checkpoint")}
    return {"request_id": "request-2", **own, "entries": bundle.entries}


def reference_of_one_request() -> ReferenceLog:
    """Entries 2 and 3 are about one request."""
    log = reference(3)
    log.add("{}", event_type="outcome", request_id="request-2")
    return log


def test_a_quarantine_hides_what_follows_it_too(tmp_path: Path) -> None:
    log = ReferenceLog()
    for event_type in ("decision", "quarantine", "feedback"):
        log.add(event_type=event_type, request_id="request-0")
    log.openings[2] = {"payload": None, "key": None}
    assert verdict_on(log.bundle().content(), tmp_path)["verdict"] == CONSISTENT


def test_a_quarantine_that_was_released_explains_nothing(tmp_path: Path) -> None:
    log = reference(2)
    for event_type, said in (("quarantine", {}), ("release", {"releases": "event-2"})):
        log.openings[1] = {"payload": None, "key": None}
        log.add("{}", event_type=event_type, request_id="request-1", **said)
        verdict = verdict_on(log.bundle().content(), tmp_path)
        is_open = event_type == "quarantine"
        assert (verdict["verdict"] == CONSISTENT) is is_open, verdict
    log.add("{}", event_type="quarantine", request_id="request-1")
    assert verdict_on(log.bundle().content(), tmp_path)["verdict"] == CONSISTENT
    log.add("{}", event_type="release", request_id="request-1", releases="event-2")
    assert verdict_on(log.bundle().content(), tmp_path)["verdict"] == CONSISTENT


def test_what_had_no_content_goes_with_any_erasure_of_its_request(tmp_path: Path) -> None:
    log = reference(2)
    log.add("{}", event_type="outcome", request_id="request-1")
    log.openings[2] = {"payload": None, "key": None}
    assert first_problem(verdict_on(log.bundle().content(), tmp_path))[0] == 2
    log.add("{}", event_type="erasure", request_id="request-1", destroys=["event-1"])
    assert verdict_on(log.bundle().content(), tmp_path)["verdict"] == CONSISTENT


def test_a_line_that_is_too_long_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = reference(3).bundle().content()
    monkeypatch.setattr(verify, "MAX_LINE_BYTES", max(map(len, content.splitlines())) + 1)
    assert verdict_on(content, tmp_path)["verdict"] == CONSISTENT
    lines = content.splitlines(keepends=True)
    lines[2] = lines[2][:-2] + b" " * verify.MAX_LINE_BYTES + lines[2][-2:]
    for long in (b"".join(lines), gzip.compress(b"".join(lines)), b"{" * 10_000):
        problem = first_problem(verdict_on(long, tmp_path))[1]
        assert "a line is longer than" in problem, problem


@pytest.mark.parametrize("error", [MemoryError(), sqlite3.OperationalError("disk is full")])
def test_a_file_that_asks_for_too_much_gets_a_verdict(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(verify, "strict_json", fails)
    found = verdict_on(reference(3).bundle().content(), tmp_path)
    assert "what this machine has" in first_problem(found)[1]


def test_a_proof_of_nothing_or_of_another_request_fails(tmp_path: Path) -> None:
    proof = proof_of(reference_of_one_request(), [2, 3])
    decision, outcome = proof["entries"]
    other = proof_of(reference_of_one_request(), [1])["entries"][0]
    for changes in (
        {"entries": []},
        {"entries": {}},
        {"entries": [outcome]},
        {"entries": [other]},
        {"entries": [other, decision, outcome]},
        {"request_id": "request-3"},
        {"more": 1},
        {"entries": [decision, {**outcome, "more": 1}]},
    ):
        verdict = verdict_on(json.dumps({**proof, **changes}).encode(), tmp_path)
        assert verdict["verdict"] == "failed", changes


def test_members_that_are_not_known_are_refused(tmp_path: Path) -> None:
    log = reference(3)
    bundle = log.bundle()
    bundle.trailer = bundle.trailer[:-2] + b',"more":1}\n'
    assert "members that are not known" in first_problem(verdict_on(bundle.content(), tmp_path))[1]
    bundle = log.bundle()
    bundle.manifest["more"] = 1
    signed = Bundle.signed(bundle.manifest, bundle.entries, log.signer)
    assert "members that are not known" in first_problem(verdict_on(signed.content(), tmp_path))[1]
