"""A small log and its bundles, straight from RFC 6962 and C2SP: shares nothing with the service."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Json = dict[str, Any]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def left_size(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def root_of(leaves: Sequence[bytes]) -> bytes:
    """MTH of section 2.1, over leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    k = left_size(len(leaves))
    return sha256(b"\x01" + root_of(leaves[:k]) + root_of(leaves[k:]))


def audit_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = left_size(len(leaves))
    if m < k:
        return [*audit_path(m, leaves[:k]), root_of(leaves[k:])]
    return [*audit_path(m - k, leaves[k:]), root_of(leaves[:k])]


def consistency_path(m: int, leaves: Sequence[bytes], *, is_old: bool = True) -> list[bytes]:
    """PROOF and SUBPROOF of section 2.1.2."""
    n = len(leaves)
    if m == n:
        return [] if is_old else [root_of(leaves)]
    k = left_size(n)
    if m <= k:
        return [*consistency_path(m, leaves[:k], is_old=is_old), root_of(leaves[k:])]
    return [*consistency_path(m - k, leaves[k:], is_old=False), root_of(leaves[:k])]


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def ranges_of(seqs: Sequence[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for seq in seqs:
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1][1] = seq
        else:
            ranges.append([seq, seq])
    return ranges


@dataclass
class Signer:
    """An Ed25519 key under the name that its fingerprint and the log's name make."""

    seed: bytes = b"\x07" * 32
    log: str = "evidence"

    @property
    def key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def name(self) -> str:
        return f"explaind/{sha256(self.public).hex()[:12]}/{self.log}"

    @property
    def key_id(self) -> bytes:
        return sha256(self.name.encode() + b"\n\x01" + self.public)[:4]

    @property
    def vkey(self) -> str:
        public = base64_text(b"\x01" + self.public)
        return f"{self.name}+{self.key_id.hex()}+{public}"

    def sign(self, text: str) -> str:
        signature = base64_text(self.key_id + self.key.sign(text.encode()))
        return f"{text}\n— {self.name} {signature}\n"


@dataclass
class ReferenceLog:
    """Headers, each with what opens its payload: {"payload", "key"} or {"sections"}."""

    signer: Signer = field(default_factory=Signer)
    headers: list[str] = field(default_factory=list)
    openings: list[Json] = field(default_factory=list)

    @property
    def leaves(self) -> list[bytes]:
        return [sha256(b"\x00" + header.encode()) for header in self.headers]

    def add(self, text: str | None = '{"answer":"ja, 5 €"}', **header: Any) -> None:
        """An event whose header commits to the text, or has no payload."""
        place = len(self.headers)
        key = sha256(b"%d" % place)
        own = {"event_id": f"event-{place}", "event_type": "decision", "tenant": "default"}
        sealed = None if text is None else {**commitment(key, text), "parts": {}}
        own |= {"request_id": f"request-{place}", "payload": sealed}
        self.headers.append(json.dumps(own | header, separators=(",", ":")))
        self.openings.append({"payload": text, "key": None if text is None else key.hex()})

    def add_sections(self, *texts: str, **header: Any) -> None:
        """An event about several subjects."""
        keys = [sha256(b"%d/%d" % (len(self.headers), i)) for i in range(len(texts))]
        sections = [commitment(key, text) for key, text in zip(keys, texts, strict=True)]
        sealed = {"commitment": None, "size": sum(map(len, texts)), "sections": sections}
        self.add(None, payload=sealed, **header)
        shown = [{"key": k.hex(), "text": t} for k, t in zip(keys, texts, strict=True)]
        self.openings[-1] = {"sections": shown}

    def checkpoint(self, size: int | None = None) -> str:
        leaves = self.leaves[:size]
        return self.signer.sign(
            f"{self.signer.name}\n{len(leaves)}\n{base64_text(root_of(leaves))}\n"
        )

    def bundle(self, seqs: Sequence[int] | None = None, *, size: int | None = None) -> "Bundle":
        """Of the whole log, at that size, or of some of its entries."""
        leaves = self.leaves[:size]
        chosen = list(range(len(leaves))) if seqs is None else list(seqs)
        entries = [
            {
                "seq": seq,
                "header": self.headers[seq],
                "proof": [base64_text(node) for node in audit_path(seq, leaves)],
                **self.openings[seq],
            }
            for seq in chosen
        ]
        manifest = {
            "format": "explaind-bundle/1",
            "vkey": self.signer.vkey,
            "checkpoint": self.checkpoint(size),
            "selection": None if seqs is None else {"request_ids": ["some"]},
            "seqs": ranges_of(chosen),
            "count": len(chosen),
        }
        return Bundle.signed(manifest, entries, self.signer)

    def consistency(self, old_size: int) -> Json:
        """The manifest's member for a witness of that size."""
        return {
            "from": old_size,
            "proof": [base64_text(node) for node in consistency_path(old_size, self.leaves)],
        }


def commitment(key: bytes, text: str) -> Json:
    code = hmac.digest(key, text.encode(), "sha256").hex()
    return {"commitment": code, "size": len(text.encode())}


def line_of(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@dataclass
class Bundle:
    """A bundle taken apart, for tests to change."""

    manifest: Json
    entries: list[Json]
    trailer: bytes

    @classmethod
    def signed(cls, manifest: Json, entries: list[Json], signer: Signer) -> "Bundle":
        lines = [line_of(manifest), *map(line_of, entries)]
        text = (
            f"explaind-bundle/1 trailer\ncount {len(entries)}\n"
            f"sha256 {sha256(b''.join(lines)).hex()}\n"
        )
        return cls(manifest, entries, line_of({"trailer": signer.sign(text)}))

    @classmethod
    def read(cls, content: bytes) -> "Bundle":
        manifest, *entries, trailer = content.splitlines(keepends=True)
        return cls(json.loads(manifest), [json.loads(line) for line in entries], trailer)

    def content(self) -> bytes:
        return b"".join([line_of(self.manifest), *map(line_of, self.entries), self.trailer])
