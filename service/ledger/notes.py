"""Signed checkpoints: C2SP signed-note (Ed25519) around C2SP tlog-checkpoint text."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.secrets import LOG_KEYS, Keyring

_ALGORITHM = b"\x01"  # Ed25519
_ORIGIN_DIGITS = 12
_NOTE = re.compile(
    r"(?P<origin>[^\s+]+)\n(?P<size>0|[1-9][0-9]{0,18})\n(?P<root>[^\n]{44})\n(?:.|\n)*"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log at some size, as one signed text; root: 32 bytes."""

    origin: str
    size: int
    root: bytes
    note: str


class LogSigner:
    """The key of all logs of a service, derived from its secret; each log has a name of its own."""

    def __init__(self, keyring: Keyring) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(keyring.key("", LOG_KEYS))
        self._public = self._key.public_key()
        self._public_bytes = self._public.public_bytes_raw()
        self._name = f"explaind/{sha256(self._public_bytes).hexdigest()[:_ORIGIN_DIGITS]}"

    def origin(self, log: str) -> str:
        """The log's name in the world, and its key's: no two services share one."""
        return f"{self._name}/{log}"

    def vkey(self, log: str) -> str:
        """The verifier key in C2SP's text: all that checking the log's checkpoints needs."""
        name = self.origin(log)
        encoded = base64.b64encode(_ALGORITHM + self._public_bytes).decode()
        return f"{name}+{self._key_id(name).hex()}+{encoded}"

    def sign(self, log: str, size: int, root: bytes) -> Checkpoint:
        """The checkpoint of a log at that size. Cost: 0.1 ms."""
        origin = self.origin(log)
        text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
        return Checkpoint(origin, size, root, self.sign_text(log, text))

    def sign_text(self, log: str, text: str) -> str:
        """The signed note of a text, which must end in a newline."""
        name = self.origin(log)
        signature = base64.b64encode(self._key_id(name) + self._key.sign(text.encode())).decode()
        return f"{text}\n\N{EM DASH} {name} {signature}\n"

    def has_signed(self, log: str, note: str) -> bool:
        """The note carries this log's signature, and it is good."""
        name = self.origin(log)
        text, _, signatures = note.rpartition("\n\n")
        prefix = f"\N{EM DASH} {name} "
        lines = [
            line.removeprefix(prefix) for line in signatures.split("\n") if line.startswith(prefix)
        ]
        return any(self._is_good(name, f"{text}\n", line) for line in lines)

    def _is_good(self, name: str, text: str, encoded: str) -> bool:
        try:
            found = base64.b64decode(encoded, validate=True)
            self._public.verify(found[4:], text.encode())
        except (binascii.Error, ValueError, InvalidSignature):
            return False
        return found[:4] == self._key_id(name)

    def _key_id(self, name: str) -> bytes:
        return sha256(name.encode() + b"\n" + _ALGORITHM + self._public_bytes).digest()[:4]


def parse_checkpoint(note: str) -> Checkpoint:
    """What a note says, whoever signed it. ValueError for anything that is no checkpoint."""
    found = _NOTE.fullmatch(note)
    if found is None:
        raise ValueError("this is not the text of a checkpoint")
    root = base64.b64decode(found["root"], validate=True)
    return Checkpoint(found["origin"], int(found["size"]), root, note)


def hashes_text(hashes: Sequence[bytes]) -> list[str]:
    """Proof hashes as JSON carries them: base64."""
    return [base64.b64encode(each).decode() for each in hashes]
