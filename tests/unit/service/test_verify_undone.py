"""A verifier finds what is shown although the log says that it was destroyed."""

import json
from pathlib import Path
from typing import Any

import pytest
from verdicts import first_problem, proof_of, reference, verdict_on

from service.verify import CONSISTENT

UNDONE = "payload shown, and a later erasure or purge has destroyed it"


@pytest.mark.parametrize("event_type", ["erasure", "purge"])
def test_what_was_erased_is_not_to_be_shown_again(event_type: str, tmp_path: Path) -> None:
    log = reference(4)
    log.add("{}", event_type=event_type, request_id="request-2", destroys=["event-2"])
    proof = {**proof_of(log, [2, 4]), "request_id": "request-2"}
    bundles = [log.bundle(), log.bundle([2, 4])]
    for content in (*(bundle.content() for bundle in bundles), json.dumps(proof).encode()):
        assert first_problem(verdict_on(content, tmp_path)) == (2, UNDONE)
    assert verdict_on(log.bundle([1, 2]).content(), tmp_path)["verdict"] == CONSISTENT
    log.openings[2] = {"payload": None, "key": None}
    assert verdict_on(log.bundle().content(), tmp_path)["verdict"] == CONSISTENT


@pytest.mark.parametrize(
    "header",
    [
        {"request_id": "request-2", "destroys": ["event-3"]},
        {"request_id": "request-1", "destroys": ["event-2"]},
        {"request_id": "request-2", "event_type": "quarantine", "destroys": ["event-2"]},
        {"request_id": "request-2", "event_type": "unknown", "destroys": ["event-2"]},
    ],
    ids=["another event", "another request", "quarantine", "another type"],
)
def test_what_no_erasure_names_may_be_shown(header: dict[str, Any], tmp_path: Path) -> None:
    log = reference(4)
    log.add("{}", **{"event_type": "erasure", **header})
    verdict = verdict_on(log.bundle().content(), tmp_path)
    assert verdict["verdict"] == CONSISTENT, verdict


def test_of_a_whole_erasure_no_section_is_left(tmp_path: Path) -> None:
    log = reference(2)
    log.add_sections('{"common":1}', '["Ada"]', '["Zoë"]')
    sections = log.openings[2]["sections"]
    log.add("{}", event_type="erasure", request_id="request-2", destroys=["event-2"])
    for opening in (sections, [sections[0], None, None], [None, None, sections[2]]):
        log.openings[2] = {"sections": opening}
        assert first_problem(verdict_on(log.bundle().content(), tmp_path)) == (2, UNDONE)
    log.openings[2] = {"sections": [None, None, None]}
    assert verdict_on(log.bundle().content(), tmp_path)["verdict"] == CONSISTENT


def test_of_a_subjects_erasure_at_least_one_section_is_gone(tmp_path: Path) -> None:
    log = reference(2)
    log.add_sections('{"common":1}', '["Ada"]', '["Zoë"]')
    about = {"request_id": "request-2", "destroys": ["event-2"], "scope": "subject"}
    log.add("{}", event_type="erasure", **about)
    found = verdict_on(log.bundle().content(), tmp_path)
    assert (found["not_shown"], first_problem(found)) == (0, (2, UNDONE))
    log.openings[2]["sections"][1] = None
    assert verdict_on(log.bundle().content(), tmp_path)["verdict"] == CONSISTENT
