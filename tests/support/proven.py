"""Checkpoints and proofs as the service gives them, checked with the public key alone."""

import base64
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from servers import Client, Reply, wait_until

from schemas import Proof


def verified(note: str, vkey: str) -> tuple[int, bytes]:
    """Size and root of a checkpoint that the key has signed, by C2SP's rules."""
    name, key_id, encoded = vkey.split("+", 2)
    public = base64.b64decode(encoded)
    assert public[:1] == b"\x01"
    assert hashlib.sha256(f"{name}\n".encode() + public).digest()[:4].hex() == key_id
    text, _, signature = note.partition("\n\n")
    dash, signer, blob = signature.removesuffix("\n").split(" ")
    assert (dash, signer) == ("\u2014", name)
    found = base64.b64decode(blob)
    assert found[:4].hex() == key_id
    Ed25519PublicKey.from_public_bytes(public[1:]).verify(found[4:], f"{text}\n".encode())
    origin, size, root = text.split("\n")
    assert origin == name
    return int(size), base64.b64decode(root)


def proof_of(client: Client, reply: Reply) -> dict[str, Any]:
    path = f"/explanations/{reply.headers['x-request-id']}/proof"
    wait_until(lambda: client.get(path).status == 200)
    found: dict[str, Any] = client.get(path).json()
    Proof.model_validate(found)
    return found
