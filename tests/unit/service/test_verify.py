"""verify.py against a log that was written from the RFC: what is right passes, nothing else."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundle_changes import CHANGES
from hypothesis import given
from hypothesis import strategies as st
from reference_log import (
    Bundle,
    ReferenceLog,
    Signer,
    audit_path,
    consistency_path,
    line_of,
    root_of,
)
from verdicts import SIZE, first_problem, proof_of, reference, reference_of_one_request, verdict_on

from service import verify
from service.verify import CONSISTENT, Checkpoint, is_extended, root_of_leaf


@pytest.mark.parametrize("size", [*range(10), 31, 32, 33])
def test_a_whole_log_of_any_size_passes(size: int, tmp_path: Path) -> None:
    verdict = verdict_on(reference(size).bundle().content(), tmp_path)
    assert verdict["verdict"] == CONSISTENT, verdict
    assert (verdict["checked"], verdict["whole_log"]) == (size, True)


@given(st.integers(1, 40), st.data())
def test_every_path_of_the_rfc_is_accepted_and_no_other(size: int, data: st.DataObject) -> None:
    leaves = [bytes([i + 1]) * 32 for i in range(size)]
    seq, old_size = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    path, root = audit_path(seq, leaves), root_of(leaves)
    assert root_of_leaf(leaves[seq], seq, size, path) == root
    old, new = Checkpoint(old_size, root_of(leaves[:old_size])), Checkpoint(size, root)
    proof = consistency_path(old_size, leaves) if old_size else []
    assert is_extended(old, new, proof)
    assert not is_extended(old, new, [*proof, b"\x00" * 32])
    if old_size:
        assert not is_extended(Checkpoint(old_size, b"\x00" * 32), new, proof)
    for i in range(len(proof)):
        assert not is_extended(old, new, proof[:i] + proof[i + 1 :])
        assert not is_extended(old, new, [*proof[:i], b"\x00" * 32, *proof[i + 1 :]])


def test_a_selection_a_compressed_file_and_a_proof_pass(tmp_path: Path) -> None:
    log = reference()
    bundle = log.bundle([2, 3, 7, 12])
    for content in (bundle.content(), gzip.compress(bundle.content())):
        verdict = verdict_on(content, tmp_path, vkey=log.signer.vkey)
        assert verdict["verdict"] == CONSISTENT, verdict
        assert (verdict["checked"], verdict["whole_log"]) == (4, False)
        assert verdict["kind"] == "bundle"
        assert "as given" in verdict["key"]
    proof = proof_of(reference_of_one_request(), [2, 3])
    for text in (json.dumps(proof), json.dumps(proof, indent=2)):
        verdict = verdict_on(text.encode(), tmp_path)
        assert (verdict["verdict"], verdict["kind"]) == (CONSISTENT, "proof"), verdict


def test_a_changed_proof_document_is_refused(tmp_path: Path) -> None:
    proof = proof_of(reference_of_one_request(), [2, 3])
    proof["entries"][1]["header"] += " "
    assert first_problem(verdict_on(json.dumps(proof).encode(), tmp_path))[0] == 3


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_found_and_located(name: str, tmp_path: Path) -> None:
    change, bundle = CHANGES[name], reference().bundle()
    change.make(bundle)
    found = first_problem(verdict_on(bundle.content(), tmp_path))
    assert change.is_named_by(found, SIZE), found


@pytest.mark.parametrize(
    "name", [name for name in CHANGES if "trailer" not in CHANGES[name].problem]
)
def test_who_holds_the_key_and_signs_the_file_again_is_found_too(name: str, tmp_path: Path) -> None:
    """The trailer only says that the file is as it was exported; the entries prove themselves."""
    change, log = CHANGES[name], reference()
    bundle = log.bundle()
    change.make(bundle)
    signed = Bundle.signed(bundle.manifest, bundle.entries, log.signer)
    found = first_problem(verdict_on(signed.content(), tmp_path))
    assert change.is_named_by(found, SIZE), found


def test_an_old_copy_and_another_history_are_found_with_a_witness_only(tmp_path: Path) -> None:
    log = reference()
    old = log.bundle(size=9).content()
    assert verdict_on(old, tmp_path)["verdict"] == CONSISTENT
    found = verdict_on(old, tmp_path, witness=log.checkpoint())
    assert first_problem(found) == (9, "rolled back or truncated: the witness has 13 entries")
    other = reference(8)
    other.add('{"age":0}')
    for i in range(9, SIZE + 1):
        other.add(f'{{"age":{i}}}')
    for size in (9, 14):
        content = other.bundle(size=size).content()
        assert verdict_on(content, tmp_path)["verdict"] == CONSISTENT
        assert (
            "forked" in first_problem(verdict_on(content, tmp_path, witness=log.checkpoint(9)))[1]
        )
        same = verdict_on(content, tmp_path, witness=log.checkpoint(8))
        assert same["verdict"] == "consistent with the witness"


def test_a_selection_needs_a_proof_from_the_witness(tmp_path: Path) -> None:
    log = reference()
    bundle = log.bundle([3, 4])
    found = verdict_on(bundle.content(), tmp_path, witness=log.checkpoint(9))
    assert found["verdict"] == "witness not compared"
    assert "export with it" in found["witness"]
    for size, verdict in ((9, "consistent with the witness"), (8, "witness not compared")):
        bundle.manifest["consistency"] = log.consistency(9)
        signed = Bundle.signed(bundle.manifest, bundle.entries, log.signer)
        found = verdict_on(signed.content(), tmp_path, witness=log.checkpoint(size))
        assert found["verdict"] == verdict
    bundle.manifest["consistency"]["proof"][0] = "A" * 43 + "="
    signed = Bundle.signed(bundle.manifest, bundle.entries, log.signer)
    found = verdict_on(signed.content(), tmp_path, witness=log.checkpoint(9))
    assert "forked" in first_problem(found)[1]
    for size in (0, SIZE):
        found = verdict_on(log.bundle([3]).content(), tmp_path, witness=log.checkpoint(size))
        assert found["verdict"] == "consistent with the witness"


def test_another_key_is_found_by_the_right_one_or_a_witness(tmp_path: Path) -> None:
    log, forged = reference(), reference()
    forged.signer = Signer(b"\x08" * 32)
    content = forged.bundle().content()
    alone = verdict_on(content, tmp_path)
    assert alone["verdict"] == CONSISTENT
    assert "taken from the evidence itself" in alone["key"]
    found = verdict_on(content, tmp_path, vkey=log.signer.vkey)
    assert "signed by another key" in first_problem(found)[1]
    found = verdict_on(content, tmp_path, witness=log.checkpoint())
    assert "not signed by" in first_problem(found)[1]


def test_the_access_log_is_verified_by_the_evidence_logs_key(tmp_path: Path) -> None:
    log = reference(3)
    vkey, witness = log.signer.vkey, log.checkpoint()
    log.signer = Signer(log="access")
    assert verdict_on(log.bundle().content(), tmp_path, vkey=vkey)["verdict"] == CONSISTENT
    found = verdict_on(log.bundle().content(), tmp_path, witness=witness)
    assert "not signed by" in first_problem(found)[1]


def test_a_key_that_is_not_of_its_name_is_refused(tmp_path: Path) -> None:
    bundle, signer = reference(3).bundle(), Signer(b"\x08" * 32)
    name, _, public = bundle.manifest["vkey"].split("+", 2)
    other = f"{name}+{signer.key_id.hex()}+{signer.vkey.split('+', 2)[2]}"
    for vkey in (other, f"{name}+00000000+{public}", name, ""):
        bundle.manifest["vkey"] = vkey
        assert first_problem(verdict_on(bundle.content(), tmp_path))[0] is None


def test_what_is_erased_needs_a_later_erasure(tmp_path: Path) -> None:
    log = reference(4)
    log.openings[2] = {"payload": None, "key": None}
    assert first_problem(verdict_on(log.bundle().content(), tmp_path))[0] == 2
    log.add("{}", event_type="erasure", request_id="request-1", destroys=["event-2"])
    assert first_problem(verdict_on(log.bundle().content(), tmp_path))[0] == 2
    log.add("{}", event_type="erasure", request_id="request-2", destroys=["event-1"])
    assert first_problem(verdict_on(log.bundle().content(), tmp_path))[0] == 2
    log.add("{}", event_type="purge", request_id="request-2", destroys=["event-1", "event-2"])
    found = verdict_on(log.bundle().content(), tmp_path)
    assert (found["verdict"], found["not_shown"]) == (CONSISTENT, 1)
    selected = verdict_on(log.bundle([2]).content(), tmp_path)
    assert (selected["verdict"], selected["not_shown"]) == (CONSISTENT, 1)


def test_an_erasure_before_the_event_explains_nothing(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.add("{}", event_type="erasure", request_id="request-1", destroys=["event-1"])
    log.add()
    log.openings[1] = {"payload": None, "key": None}
    assert first_problem(verdict_on(log.bundle().content(), tmp_path))[0] == 1


def test_sections_are_opened_one_by_one(tmp_path: Path) -> None:
    log = reference(2)
    log.add_sections('{"common":1}', '["Ada"]', '["Zoë"]')
    about = {"request_id": "request-2", "destroys": ["event-2"], "scope": "subject"}
    log.add("{}", event_type="erasure", **about)
    assert "payload shown" in first_problem(verdict_on(log.bundle().content(), tmp_path))[1]
    sections = log.openings[2]["sections"]
    erased = {"sections": [*sections[:2], None]}
    log.openings[2] = erased
    found = verdict_on(log.bundle().content(), tmp_path)
    assert (found["verdict"], found["not_shown"]) == (CONSISTENT, 1)
    wrong: list[dict[str, Any]] = [
        {"sections": [sections[0], sections[2], sections[1]]},
        {"sections": sections[:2]},
        {"sections": [sections[0], {**sections[1], "text": '["Eva"]'}, None]},
        {"payload": sections[0]["text"], "key": sections[0]["key"]},
        {"sections": [None, None, None]},  # a subject's erasure leaves the common one
        {"payload": None, "key": None},
    ]
    for opening in wrong:
        log.openings[2] = opening
        assert first_problem(verdict_on(log.bundle().content(), tmp_path))[0] == 2, opening


def test_the_same_event_or_request_twice_is_found(tmp_path: Path) -> None:
    log = reference(4)
    log.add(event_id="event-1")
    assert first_problem(verdict_on(log.bundle().content(), tmp_path)) == (
        4,
        "a second event event-1",
    )
    log = reference(4)
    log.add(request_id="request-1")
    found = first_problem(verdict_on(log.bundle().content(), tmp_path))
    assert found == (4, "a second decision of default/request-1")


def test_an_answer_beside_another_is_counted_and_never_stands_for_it(tmp_path: Path) -> None:
    log = reference(4)
    log.add(request_id="request-1", beside=True)
    verdict = verdict_on(log.bundle().content(), tmp_path)
    assert (verdict["verdict"], verdict["beside"]) == (CONSISTENT, 1), verdict
    log.add(request_id="alone", beside=True)
    found = first_problem(verdict_on(log.bundle().content(), tmp_path))
    assert found == (5, "beside nothing: there is no decision of default/alone of its own")
    assert verdict_on(log.bundle([5]).content(), tmp_path)["verdict"] == CONSISTENT
    proof = proof_of(log, [5]) | {"request_id": "alone"}
    _, problem = first_problem(verdict_on(json.dumps(proof).encode(), tmp_path))
    assert problem == "there is no decision of the request among the entries"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b"nothing\n",
        b'{"seq":NaN}\n',
        b'{"seq":1,"seq":1,"header":"","proof":[],"payload":null,"key":null}\n',
        b'{"seq":true,"header":"","proof":[],"payload":null,"key":null}\n',
        b'{"seq":1.0,"header":"","proof":[],"payload":null,"key":null}\n',
        b'{"seq":1,"header":"\\ud800","proof":[],"payload":null,"key":null}\n',
        b'{"seq":1,"header":"{}","proof":["x"],"payload":null,"key":null}\n',
        b'{"seq":1,"header":"{}","proof":7,"payload":null,"key":null}\n',
        b"\xff\n",
        b"[" * 100_000 + b"\n",
    ],
    ids=range(13),
)
def test_a_broken_line_is_named_by_the_seq_that_was_due(line: bytes, tmp_path: Path) -> None:
    lines = reference(3).bundle().content().splitlines(keepends=True)
    lines[2] = line
    assert first_problem(verdict_on(b"".join(lines), tmp_path))[0] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\x00\x01",
        b"{" * 100_000,
        b"\x1f\x8b rubbish",
        b'{"entries":[]}',
    ],
    ids=range(7),
)
def test_what_is_no_evidence_fails(content: bytes, tmp_path: Path) -> None:
    assert verdict_on(content, tmp_path)["verdict"] == "failed"


@pytest.mark.parametrize(
    "seqs", [[[-1, 2]], [[1, 2], [0, 0]], [[0, 2], [2, 2]], [[0.0, 2]], [[0]], 7]
)
def test_a_manifest_without_proper_ranges_fails(seqs: object, tmp_path: Path) -> None:
    bundle = reference(3).bundle()
    bundle.manifest["seqs"] = seqs
    assert verdict_on(bundle.content(), tmp_path)["verdict"] == "failed"


def test_a_damaged_compressed_file_fails(tmp_path: Path) -> None:
    packed = gzip.compress(reference().bundle().content())
    assert verdict_on(packed[: len(packed) // 2], tmp_path)["verdict"] == "failed"


def test_findings_are_at_most_a_hundred(tmp_path: Path) -> None:
    bundle = reference(150).bundle()
    for entry in bundle.entries:
        entry["header"] += " "
    assert len(verdict_on(bundle.content(), tmp_path)["findings"]) == verify.SHOWN


@pytest.mark.parametrize(
    ("name", "shown"),
    [("good", CONSISTENT), ("bad", "failed\n  seq 0: changed"), ("missing", None)],
)
def test_it_runs_alone_in_any_directory(name: str, shown: str | None, tmp_path: Path) -> None:
    """Copied elsewhere, without the service on its path, isolated from this environment."""
    program = tmp_path / "verify.py"
    program.write_bytes(Path(verify.__file__).read_bytes())
    bundle = reference(3).bundle()
    (tmp_path / "good").write_bytes(bundle.content())
    bundle.entries[0]["header"] += " "
    (tmp_path / "bad").write_bytes(bundle.content())
    command = [sys.executable, "-I", str(program), name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == {"good": 0, "bad": 1, "missing": 2}[name]
    assert shown is None or done.stdout.startswith(shown)
    if shown is not None:
        listed = subprocess.run(
            [*command, "--json"], cwd=tmp_path, capture_output=True, check=False
        )
        assert json.loads(listed.stdout)["size"] == 3


def test_it_imports_nothing_but_the_standard_library_and_cryptography() -> None:
    import ast

    tree = ast.parse(Path(verify.__file__).read_text())
    nodes = list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert others == {"cryptography"}


def test_a_line_of_the_format_is_what_the_page_says() -> None:
    bundle = reference(1).bundle()
    assert line_of(bundle.manifest).startswith(b'{"format":"explaind-bundle/1","vkey":"explaind/')
    assert list(bundle.entries[0]) == ["seq", "header", "proof", "payload", "key"]


def test_a_name_that_stands_twice_in_a_line_is_refused(tmp_path: Path) -> None:
    """Another reader may take the first of the two."""
    log = reference(3)
    bundle = log.bundle()
    lines = [line_of(bundle.manifest), *map(line_of, bundle.entries)]
    lines[2] = lines[2].replace(b'"payload":', b'"payload":null,"payload":', 1)
    found = verdict_on(b"".join([*lines, bundle.trailer]), tmp_path)
    assert first_problem(found) == (1, "a name stands twice in one JSON object")


class Impostor(Signer):
    """Signs in the name of another key's fingerprint."""

    @property
    def name(self) -> str:
        return Signer().name


def test_a_key_under_another_fingerprint_is_refused(tmp_path: Path) -> None:
    log = reference(3)
    log.signer = Impostor(b"\x08" * 32)
    found = first_problem(verdict_on(log.bundle().content(), tmp_path))
    assert found == (None, "the verifier key's name tells the fingerprint of another key")


def test_a_checkpoint_of_another_log_under_the_right_key_is_refused(tmp_path: Path) -> None:
    log = reference(3)
    bundle = log.bundle()
    text = bundle.manifest["checkpoint"].rpartition("\n\n")[0]
    other = "\n".join(["explaind/other", *text.split("\n")[1:], ""])
    bundle.manifest["checkpoint"] = log.signer.sign(other)
    signed = Bundle.signed(bundle.manifest, bundle.entries, log.signer)
    assert "not a checkpoint of" in first_problem(verdict_on(signed.content(), tmp_path))[1]
