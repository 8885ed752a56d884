"""What verify.py refuses before it looks at entries: what is too much, unknown or elsewhere."""

import gzip
import json
import sqlite3
from pathlib import Path

import pytest
from reference_log import Bundle, ReferenceLog, audit_path, base64_text, root_of
from verdicts import first_problem, proof_of, reference, reference_of_one_request, verdict_on

from service import verify
from service.verify import CONSISTENT, root_of_leaf


def test_a_path_leads_to_the_root_from_its_own_place_alone() -> None:
    for size in range(1, 34):
        leaves = [bytes([i + 1]) * 32 for i in range(size)]
        root = root_of(leaves)
        for seq, leaf in enumerate(leaves):
            path = audit_path(seq, leaves)
            found = [root_of_leaf(leaf, place, size, path) == root for place in range(size)]
            assert found == [place == seq for place in range(size)], (size, seq)


@pytest.mark.parametrize("character", ["\r", "\t", "\x00"])
def test_a_note_with_control_characters_is_refused_though_signed(
    character: str, tmp_path: Path
) -> None:
    log = reference(3)
    bundle = log.bundle()
    text = f"{log.signer.name}\n3\n{base64_text(root_of(log.leaves))}\nmore{character}\n"
    bundle.manifest["checkpoint"] = log.signer.sign(text)
    signed = Bundle.signed(bundle.manifest, bundle.entries, log.signer)
    assert first_problem(verdict_on(signed.content(), tmp_path)) == (None, "not a signed note")


def test_the_root_of_no_entries_is_that_of_none(tmp_path: Path) -> None:
    log = ReferenceLog()
    bundle = log.bundle()
    text = f"{log.signer.name}\n0\n{base64_text(b'0' * 32)}\n"
    bundle.manifest["checkpoint"] = log.signer.sign(text)
    signed = Bundle.signed(bundle.manifest, bundle.entries, log.signer)
    assert "the root over all entries" in first_problem(verdict_on(signed.content(), tmp_path))[1]


@pytest.mark.parametrize("more", ["00", " "])
def test_a_key_written_in_another_way_is_refused(more: str, tmp_path: Path) -> None:
    """HMAC fills short keys up with zeros, so a longer one can open the same commitment."""
    log = reference(3)
    log.openings[1]["key"] += more
    problem = (1, "payload or key changed: not what the header commits to")
    assert first_problem(verdict_on(log.bundle().content(), tmp_path)) == problem


def test_an_erasure_does_not_say_why_its_own_payload_is_missing(tmp_path: Path) -> None:
    log = reference(1)
    log.add("{}", event_type="erasure", request_id="request-0", destroys=["event-1"])
    assert verdict_on(log.bundle().content(), tmp_path)["verdict"] == CONSISTENT
    log.openings[1] = {"payload": None, "key": None}
    found = first_problem(verdict_on(log.bundle().content(), tmp_path))
    assert found == (1, "payload missing, and no later erasure or purge or quarantine says why")


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
    log.add("{}", event_type="erasure", request_id="request-1", destroys=[])
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


@pytest.mark.parametrize(
    ("seqs", "left_out"),
    [
        ([], 0),
        ([[0, 4]], None),
        ([[0, 1], [2, 4]], None),
        ([[1, 4]], 0),
        ([[0, 1], [3, 4]], 2),
        ([[0, 3]], 4),
        ([[0, 1], [3, 5]], 2),
        ([[0, 5]], 5),
    ],
)
def test_the_first_entry_that_ranges_leave_out_is_named(
    seqs: list[list[int]], left_out: int | None
) -> None:
    assert verify.left_out_of(seqs, 5) == left_out
    assert verify.left_out_of([], 0) is None
