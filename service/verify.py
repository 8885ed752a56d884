"""Verify evidence offline: a bundle, or the proof of one request.

    python verify.py BUNDLE [--witness CHECKPOINT] [--key VKEY] [--json]

Exit code 0: consistent; 1: something is wrong, or the witness could not be compared; 2: usage.
This file stands alone and may be copied: it needs Python 3.11 and `cryptography`, nothing else.
What it checks, and why: docs/verification.md. Sources: RFC 6962, C2SP signed-note, tlog-checkpoint.
"""

import argparse
import binascii
import gzip
import hashlib
import hmac
import json
import re
import sqlite3
import sys
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BUNDLE, TRAILER = "explaind-bundle/1", b'{"trailer":'
CONSISTENT = "consistent; rollback not excluded"
MAX_LINE_BYTES = 1 << 25
SHOWN = 100
HIDING = ("erasure", "purge", "quarantine")
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")
_FORMS = ({"seq", "header", "proof", "payload", "key"}, {"seq", "header", "proof", "sections"})
_TWICE = "SELECT name, max(seq) FROM notes WHERE kind = 'name' GROUP BY name HAVING count(*) > 1"
_ALONE = """SELECT name, seq FROM notes WHERE kind = 'beside' AND name NOT IN (
  SELECT name FROM notes WHERE kind = 'name')"""
_MANIFEST = {"format", "vkey", "checkpoint", "selection", "seqs", "count", "consistency"}
_PROOF = {"request_id", "log", "vkey", "checkpoint", "entries", "consistency"}
_NOTES = "CREATE TABLE notes (kind TEXT, name TEXT, seq INTEGER)"
_HIDING = """CREATE TABLE payloads (
  seq INTEGER, request TEXT, event TEXT, missing INTEGER, is_part INTEGER, is_empty INTEGER);
CREATE TABLE hiding (request TEXT, event TEXT, until INTEGER, of_part INTEGER, by TEXT);
CREATE INDEX by_request ON hiding (request, event)"""
_UNEXPLAINED = """SELECT seq FROM payloads AS p WHERE missing AND NOT EXISTS (
  SELECT 1 FROM hiding WHERE hiding.request = p.request AND until > seq
  AND (hiding.event IS NULL OR hiding.event = p.event OR is_empty) AND of_part <= is_part)"""
_UNDONE = """SELECT seq FROM payloads AS p WHERE missing < 2 AND EXISTS (
  SELECT 1 FROM hiding WHERE hiding.request = p.request AND hiding.event = p.event
  AND until BETWEEN seq + 1 AND ? AND missing <= 1 - of_part)"""

Json = dict[str, Any]
Ranges = Sequence[Sequence[int]]
Text = str | None


class ProblemError(ValueError):
    """What is wrong, in a sentence."""


MALFORMED = (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError)
TOO_MUCH = (MemoryError, sqlite3.Error)  # of a file that asks for more than this machine has


def said(error: Exception) -> str:
    """The sentence to report of one of MALFORMED."""
    return str(error) if isinstance(error, ProblemError) else f"malformed: {error!r}"


def strict_json(text: str | bytes) -> Json:
    """The object a JSON text is, without duplicate names, NaN or Infinity."""
    refuse = dict[str, float]().pop
    found: Json = json.loads(text, object_pairs_hook=_unique, parse_constant=refuse)
    if type(found) is not dict:
        raise ProblemError("not a JSON object")
    return found


def _unique(pairs: list[tuple[str, object]]) -> Json:
    if len(found := dict(pairs)) != len(pairs):
        raise ProblemError("a name stands twice in one JSON object")
    return found


def unbase64(text: str, size: int) -> bytes:
    found = binascii.a2b_base64(text, strict_mode=True)
    if len(found) != size:
        raise ProblemError(f"{len(found)} bytes in base64, not {size}")
    return found


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of_leaf(leaf: bytes, seq: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that an audit path leads to (RFC 6962, 2.1.1), None if it has the wrong length."""
    place, last, node = seq, size - 1, leaf
    for sibling in proof:
        if not last:
            return None
        while place == last and not place & 1:  # no right sibling at these heights
            place, last = place >> 1, last >> 1
        node = node_hash(sibling, node) if place & 1 else node_hash(node, sibling)
        place, last = place >> 1, last >> 1
    return None if last else node


def is_extended(old: "Checkpoint", new: "Checkpoint", proof: Sequence[bytes]) -> bool:
    """The new tree begins with the old one, by a consistency proof (RFC 6962, 2.1.2)."""
    nodes = list(proof)

    def roots(m: int, n: int, *, is_old: bool) -> tuple[bytes, bytes]:
        if m == n:
            node = old.root if is_old else nodes.pop()
            return node, node
        k, sibling = 1 << (n - 1).bit_length() - 1, nodes.pop()
        if m <= k:
            before, after = roots(m, k, is_old=is_old)
            return before, node_hash(after, sibling)
        before, after = roots(m - k, n - k, is_old=False)
        return node_hash(sibling, before), node_hash(sibling, after)

    if not 0 < old.size <= new.size:
        return old.size == 0 and not nodes
    try:
        return roots(old.size, new.size, is_old=True) == (old.root, new.root) and not nodes
    except IndexError:  # too short
        return False


class Checkpoint(NamedTuple):
    """What a log's key has signed: size and root of its tree."""

    size: int
    root: bytes


class Key(NamedTuple):
    """An Ed25519 public key, its name, and the four bytes that stand for it in signatures."""

    name: str
    identity: bytes
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Of C2SP signed-note's text; a name that tells a fingerprint must tell this key's."""
        name, identity, encoded = vkey.strip().split("+", 2)
        public = unbase64(encoded, 33)
        key = cls(name, hashlib.sha256(f"{name}\n".encode() + public).digest()[:4], public[1:])
        if not name or public[0] != 1 or identity != key.identity.hex():
            raise ProblemError("the verifier key is not one of Ed25519 under its name")
        if name.startswith("explaind/") and name.split("/")[1] != key.fingerprint[:12]:
            raise ProblemError("the verifier key's name tells the fingerprint of another key")
        return key

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the 32 bytes of the public key, in hexadecimal."""
        return hashlib.sha256(self.public).hexdigest()

    def open(self, note: str) -> str:
        """The text of a note this key has signed."""
        text, blank, lines = note.rpartition("\n\n")
        if not blank or lines[-1:] != "\n" or any(c < " " and c != "\n" for c in note):
            raise ProblemError("not a signed note")
        text, mark = f"{text}\n", f"— {self.name} "
        for line in lines.split("\n"):
            signature = unbase64(line.removeprefix(mark), 68) if line.startswith(mark) else b""
            if signature[:4] == self.identity:
                try:
                    signer = Ed25519PublicKey.from_public_bytes(self.public)
                    signer.verify(signature[4:], text.encode())
                except InvalidSignature:
                    raise ProblemError("the signature is not that of the text") from None
                return text
        raise ProblemError(f"not signed by {self.name}, fingerprint {self.fingerprint}")

    def checkpoint(self, note: str) -> Checkpoint:
        """Of the log whose name is the key's."""
        origin, size, root, *more = self.open(note).split("\n")
        if origin != self.name or not _SIZE.fullmatch(size) or "" in more[:-1]:
            raise ProblemError(f"not a checkpoint of {self.name}")
        return Checkpoint(int(size), unbase64(root, 32))


class Hiding:
    """Which payloads are missing, and what the log of that size says of why, in constant memory."""

    def __init__(self, size: int) -> None:
        self._size, self._tables = size, sqlite3.connect("")  # a temporary file, as other notes
        self._tables.executescript(_HIDING)

    def take_fact(self, seq: int, header: Json) -> None:
        """What an entry's header says of payloads: that they are destroyed, hidden or free again.

        An erasure names the events it destroys, before it; one of a subject leaves what is in
        sections its first, common one. A quarantine hides what follows it, too, until a release
        names it. What had no content goes with any erasure of its request.
        """
        kind, request = header.get("event_type"), request_of(header)
        if kind in HIDING:
            until = self._size if kind == "quarantine" else seq
            named = [None] if kind == "quarantine" else ["", *map(str, header.get("destroys", ()))]
            of_part, own = header.get("scope") is not None, str(header.get("event_id"))
            rows = [(request, event, until, of_part, own) for event in named]
            self._tables.executemany("INSERT INTO hiding VALUES (?, ?, ?, ?, ?)", rows)
        elif kind == "release":
            released = (request, str(header.get("releases")))
            self._tables.execute("DELETE FROM hiding WHERE request = ? AND by = ?", released)

    def take_payload(self, seq: int, header: Json, entry: Json, missing: int) -> None:
        """An entry with a payload; missing: as `missing_of` says."""
        sealed: Json = header.get("payload") or {}
        is_part = bool((entry.get("sections") or ["sections" not in sealed])[0])
        is_empty = sealed.get("size") == len("{}")
        row = (seq, request_of(header), str(header["event_id"]), missing, is_part, is_empty)
        self._tables.execute("INSERT INTO payloads VALUES (?, ?, ?, ?, ?, ?)", row)

    def unexplained(self) -> list[int]:
        """The places of payloads that are missing and that nothing so far says why."""
        return [seq for (seq,) in self._tables.execute(_UNEXPLAINED)]

    def undone(self) -> list[int]:
        """The places of payloads that are shown, and that an erasure or purge has destroyed: of one
        of a subject, all sections are there.
        """
        return [seq for (seq,) in self._tables.execute(_UNDONE, (self._size - 1,))]

    def close(self) -> None:
        self._tables.close()


class Verification:
    """Checks entries one after the other, in constant memory, against one checkpoint."""

    def __init__(self, head: Json, seqs: Ranges, witness: Text = None, vkey: Text = None) -> None:
        """head: vkey, checkpoint, perhaps consistency; seqs: what follows, as first and last."""
        ends = [end for first, last in seqs for end in (first - 1, last)]
        if any(type(end) is not int for end in ends) or [-1, *ends] != sorted([-1, *ends]):
            raise ProblemError("the seqs are not ascending ranges")
        self.key, self._is_given = Key.parse(head["vkey"]), vkey is not None
        if vkey is not None and Key.parse(vkey).public != self.key.public:
            raise ProblemError(f"signed by another key, fingerprint {self.key.fingerprint}")
        self.checkpoint = self.key.checkpoint(head["checkpoint"])
        self._witness = None if witness is None else self.key.checkpoint(witness)
        self._consistency: Json = head.get("consistency") or {}
        self.left_out = left_out_of(seqs, self.checkpoint.size)
        self._ranges, self._firsts = seqs, [first for first, _ in seqs]
        self._due = seqs[0][0] if seqs else None
        self._size, self._subtrees, self._root_at_witness = 0, list[bytes](), b""
        self._notes = sqlite3.connect("")  # a temporary file: any number of entries
        self._notes.execute(_NOTES)
        self.hiding = Hiding(self.checkpoint.size)
        self.findings: list[tuple[int | None, str]] = []
        self.count, self._hidden, self._lacks = 0, 0, ""

    @property
    def is_whole(self) -> bool:
        """Every entry of the log is to follow, and no other."""
        return self.left_out is None

    def report(self, seq: int | None, problem: str) -> None:
        """Note what is wrong with an entry or, None, with the whole; at most SHOWN times."""
        if len(self.findings) < SHOWN:
            self.findings.append((seq, problem))

    def headers_seen(self, header: Json) -> None:
        """For who demands more of headers. Raises ProblemError."""

    def take(self, line: bytes | Json) -> None:
        """Check the next entry."""
        self.count, seq = self.count + 1, self._due
        if self.count % 10_000 == 0:
            print(f"{self.count} entries checked", file=sys.stderr)  # noqa: T201
        try:
            entry = strict_json(line) if isinstance(line, bytes) else line
            if entry.keys() not in _FORMS or type(entry["seq"]) is not int:
                raise ProblemError("the line has not the members of an entry")
            seq = entry["seq"]
            self._take_place(seq)
            self._check(seq, entry)
        except MALFORMED as error:
            self.report(seq, said(error))

    def _take_place(self, seq: int) -> None:
        due, i = self._due, bisect_right(self._firsts, seq) - 1
        if i < 0 or seq > self._ranges[i][1]:
            self.report(seq, "extra: the manifest does not name this entry")
        elif due is None or seq < due:
            self.report(seq, "duplicate or out of order: it stands after later entries")
        else:
            following = self._firsts[i + 1] if i + 1 < len(self._firsts) else None
            self._due = seq + 1 if seq < self._ranges[i][1] else following
            if seq != due:
                self.report(due, f"missing: entry {seq} stands in its place")

    def _grow(self, node: bytes) -> None:
        place = self._size
        while place & 1:  # all full subtrees of the same height
            node, place = node_hash(self._subtrees.pop(), node), place >> 1
        self._subtrees.append(node)
        self._size += 1
        if self._witness is not None and self._witness.size == self._size:
            self._root_at_witness = self._root()

    def _root(self) -> bytes:
        nodes = reversed(self._subtrees or [hashlib.sha256().digest()])
        return reduce(lambda right, left: node_hash(left, right), nodes)

    def _check(self, seq: int, entry: Json) -> None:
        leaf = hashlib.sha256(b"\x00" + entry["header"].encode()).digest()
        if seq == self._size:
            self._grow(leaf)
        self.check_proof(seq, leaf, entry["proof"])
        header = strict_json(entry["header"])
        self.headers_seen(header)
        request, event = request_of(header), str(header["event_id"])
        notes = [("name", f"event {event}", seq)]
        if is_decision(header):
            notes.append(("name", f"decision of {request}", seq))
        elif header.get("event_type") == "decision":
            notes.append(("beside", f"decision of {request}", seq))
        self._notes.executemany("INSERT INTO notes VALUES (?, ?, ?)", notes)
        self.hiding.take_fact(seq, header)
        missing = missing_of(header.get("payload"), entry)
        self._hidden += missing > 0
        if header.get("payload") is not None:
            self.hiding.take_payload(seq, header, entry, missing)

    def check_proof(self, seq: int, leaf: bytes, proof: Sequence[str]) -> None:
        """The entry has this place in the signed tree. Raises ProblemError."""
        size, hashes = self.checkpoint.size, [unbase64(node, 32) for node in proof]
        root = root_of_leaf(leaf, seq, size, hashes) if 0 <= seq < size else None
        if root != self.checkpoint.root:
            raise ProblemError("changed: header and proof do not lead to the checkpoint's root")

    def finish(self) -> Json:
        """Check what can be said only of all entries; the verdict."""
        if self._due is not None:
            self.report(self._due, "missing: nothing stands in its place or after it")
        for name, seq in self._notes.execute(_TWICE):
            self.report(seq, f"a second {name}")
        for seq in self.hiding.undone():
            self.report(seq, "payload shown, and a later erasure or purge has destroyed it")
        if self.is_whole:
            self._finish_whole()
        if self._witness is not None:
            self._compare(self._witness, self.checkpoint)
        (beside,) = self._notes.execute("SELECT count(*) FROM notes WHERE kind = 'beside'")
        self._notes.close()
        self.hiding.close()
        return self._verdict(*beside)

    def _finish_whole(self) -> None:
        for name, seq in self._notes.execute(_ALONE):
            self.report(seq, f"beside nothing: there is no {name} of its own")
        for seq in self.hiding.unexplained():
            self.report(seq, f"payload missing, and no later {' or '.join(HIDING)} says why")
        if self._root() != self.checkpoint.root and not self.findings:
            self.report(None, "the root over all entries is not the checkpoint's")

    def _compare(self, old: Checkpoint, new: Checkpoint) -> None:
        is_between, given = 0 < old.size < new.size, self._consistency
        if old.size > new.size:
            self.report(new.size, f"rolled back or truncated: the witness has {old.size} entries")
        elif is_between and self.is_whole:
            if self._root_at_witness != old.root:
                self.report(None, f"forked: its first {old.size} entries are not the witness's")
        elif is_between and given.get("from") != old.size:
            self._lacks = f"this selection carries no proof from size {old.size}: export with it"
        else:
            proof = [unbase64(node, 32) for node in given["proof"]] if is_between else []
            if not is_extended(old, new, proof):
                self.report(None, f"forked: not the history of the witness of size {old.size}")

    def _verdict(self, beside: int) -> Json:
        found = sorted(self.findings, key=lambda one: (one[0] is None, one[0] or 0))
        agrees = "witness not compared" if self._lacks else "consistent with the witness"
        source = "as given" if self._is_given else "taken from the evidence itself: compare it"
        size, root = self.checkpoint.size, self.checkpoint.root.hex()
        about = {"log": self.key.name, "size": size, "root": root, "checked": self.count}
        about |= {"whole_log": self.is_whole, "not_shown": self._hidden, "beside": beside}
        return {
            "verdict": "failed" if found else agrees if self._witness else CONSISTENT,
            "findings": [{"seq": seq, "problem": problem} for seq, problem in found],
            **about,
            "witness": self._lacks or (self._witness and f"size {self._witness.size}"),
            "key": f"{self.key.fingerprint}, {source}",
        }


def left_out_of(seqs: Ranges, size: int) -> int | None:
    """The first place of a log of that size at which these ascending ranges leave it."""
    due = 0
    for first, last in seqs:
        if first != due:
            break
        due = last + 1
    return None if due == size else min(due, size)


def request_of(header: Json) -> str:
    """Tenant and request ID; neither holds a slash."""
    return f"{header.get('tenant')}/{header.get('request_id')}"


def is_decision(header: Json) -> bool:
    """Of the answer a request is known by, not of a second one that says it stands beside it."""
    return header.get("event_type") == "decision" and header.get("beside") is not True


def missing_of(sealed: Json | None, entry: Json) -> int:
    """0: the payload is shown in full, or there is none; 1: in part; 2: not at all. Raises
    ProblemError where what is shown is not what the header commits to.
    """
    parts: list[Json] = [sealed or {}]
    shown: list[Json | None] = [{"text": entry.get("payload"), "key": entry.get("key")}]
    if "sections" in entry:
        parts, shown = parts[0]["sections"], entry["sections"]
    elif entry["payload"] is None and entry["key"] is None:
        return 0 if sealed is None else 2
    for part, opening in zip(parts, shown, strict=True):
        if opening is not None:
            text, key = opening["text"].encode(), opening["key"]
            if len(text) != part["size"]:
                raise ProblemError(f"payload changed: {len(text)} bytes, not {part['size']}")
            code = hmac.digest(bytes.fromhex(key), text, "sha256").hex()
            if len(key) != 64 or code != part["commitment"]:
                raise ProblemError("payload or key changed: not what the header commits to")
    return 2 if all(one is None for one in shown) else int(None in shown)


def line_of(file: BinaryIO) -> bytes:
    """The next line, or nothing at the end. Raises ProblemError for one that is too long."""
    line = file.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise ProblemError(f"a line is longer than {MAX_LINE_BYTES} bytes")
    return line


def known_only(document: Json, names: set[str], what: str) -> Json:
    """The document, if it has no other members."""
    if others := sorted(document.keys() - names):
        raise ProblemError(f"{what} has members that are not known: {', '.join(others)}")
    return document


def verify_bundle(file: BinaryIO, first: bytes, **asked: Text) -> Json:
    """Of a bundle whose first line is the manifest, the file standing after it."""
    manifest = known_only(strict_json(first), _MANIFEST, "the manifest")
    digest = hashlib.sha256(first)
    found = Verification(manifest, manifest["seqs"], **asked)
    if manifest["selection"] is None and not found.is_whole:
        found.report(found.left_out, "missing: nothing is selected, but this is not the whole log")
    while (line := line_of(file)) and not line.startswith(TRAILER):
        digest.update(line)
        found.take(line)
    expected = f"{BUNDLE} trailer\ncount {manifest['count']}\nsha256 {digest.hexdigest()}\n"
    try:
        trailer = known_only(strict_json(line), {"trailer"}, "it") if line else {}
        is_ended = line.endswith(b"\n") and not file.read(1)
        if not is_ended or found.key.open(trailer["trailer"]) != expected:
            found.report(None, "truncated or changed: no trailer of these lines at the end")
    except MALFORMED as error:
        found.report(None, f"trailer: {said(error)}")
    return found.finish()


class Proof(Verification):
    """The answer of GET /explanations/{id}/proof: entries about one request, with its decision."""

    def __init__(self, document: Json, **asked: Text) -> None:
        if "entries" not in document:
            raise ProblemError(f"neither a bundle ({BUNDLE}) nor a proof")
        entries = known_only(document, _PROOF, "the proof")["entries"]
        if type(entries) is not list or not entries:
            raise ProblemError("the proof has no list of entries")
        seqs = sorted({entry["seq"] for entry in entries})
        super().__init__(document, [(seq, seq) for seq in seqs], **asked)
        self._request_id, self._has_decision = document["request_id"], False
        for entry in entries:
            self.take(entry)
        if not self._has_decision:
            self.report(None, "there is no decision of the request among the entries")

    def headers_seen(self, header: Json) -> None:
        """As Verification."""
        if header.get("request_id") != self._request_id:
            raise ProblemError("the entry is about another request than the proof")
        self._has_decision |= is_decision(header)


def verify_file(path: Path, **asked: Text) -> Json:
    """The verdict on a file, compressed or not. Raises OSError where it cannot be read."""
    kind = None
    try:
        with path.open("rb") as raw, gzip.open(raw) as unpacked:
            file = cast("BinaryIO", unpacked if raw.peek(2)[:2] == b"\x1f\x8b" else raw)
            first, kind = line_of(file), "proof"
            if f'"format":"{BUNDLE}"'.encode() in first[:100]:
                kind = "bundle"
                return verify_bundle(file, first, **asked) | {"kind": kind}
            if len(text := first + file.read(MAX_LINE_BYTES + 1)) > MAX_LINE_BYTES:
                raise ProblemError(f"a proof is not longer than {MAX_LINE_BYTES} bytes")
            return Proof(strict_json(text), **asked).finish() | {"kind": kind}
    except TOO_MUCH as error:
        problem = f"not to be checked with what this machine has: {error!r}"
    except (EOFError, zlib.error, gzip.BadGzipFile, *MALFORMED) as error:
        problem = said(error)
    return {"verdict": "failed", "findings": [{"seq": None, "problem": problem}], "kind": kind}


def text_of(verdict: Json) -> str:
    """For people: the verdict, then findings by place, then what it is about."""
    found = (f"  seq {one['seq']}: {one['problem']}" for one in verdict.pop("findings"))
    lines = [verdict.pop("verdict"), *(line.replace("seq None: ", "") for line in found)]
    return "\n".join(lines + [f"{name}: {value}" for name, value in verdict.items()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(description="Verify a bundle of evidence, or a proof.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--witness", type=Path, help="a checkpoint that somebody outside has kept")
    parser.add_argument("--key", help="the log's verifier key, or another log's of the same key")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    asked = parser.parse_args(arguments)
    try:
        witness = asked.witness and asked.witness.read_text(encoding="utf-8")
        verdict = verify_file(asked.bundle, witness=witness, vkey=asked.key)
    except (OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    print(json.dumps(verdict) if asked.json else text_of(dict(verdict)))  # noqa: T201
    return 0 if verdict["verdict"].startswith("consistent") else 1


if __name__ == "__main__":
    sys.exit(main())
