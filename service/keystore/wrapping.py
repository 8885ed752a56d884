"""The key-encryption key: where it comes from, and how it wraps the keys of records."""

import binascii
import hmac
import os
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_wrap,
)

from service.keystore.errors import WrongKeyError
from service.secret_files import read_or_create

KEY_BYTES = 32
REF_BYTES = 16
_CHECK = b"explaind/1/check of the key-encryption key"


class DataKey(NamedTuple):
    """A key of 32 random bytes, and the reference it is stored under."""

    ref: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Kek:
    """A key-encryption key. AES key wrap (RFC 3394) is used because it needs no nonce: random
    ones of AES-GCM are good for 2^32 keys, which is a hundred days of 500 records a second.
    """

    _key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self._key) != KEY_BYTES:
            raise WrongKeyError(
                f"the key-encryption key must have exactly {KEY_BYTES} bytes, "
                f"found {len(self._key)}"
            )

    @classmethod
    def random(cls) -> Self:
        """A new one, which is nowhere else."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Of 64 hexadecimal digits or base64. Raises WrongKeyError, which does not repeat it."""
        try:
            if len(text) == 2 * KEY_BYTES:
                return cls(bytes.fromhex(text))
            return cls(b64decode(text, validate=True))
        except (ValueError, binascii.Error):
            raise WrongKeyError(
                "the key-encryption key is neither 64 hexadecimal digits nor base64"
            ) from None

    @property
    def check(self) -> str:
        """What a store keeps to recognise the key; says nothing about it."""
        return hmac.digest(self._key, _CHECK, "sha256").hex()

    def new_keys(self, count: int, prefix: bytes) -> list[tuple[DataKey, bytes]]:
        """Random keys with what is stored of each. Cost: 1.6 us a key.

        prefix: 14 bytes that no other call is given; count <= 65,536.
        """
        random = os.urandom(KEY_BYTES * count)
        made = []
        for i in range(count):
            key = random[i * KEY_BYTES : (i + 1) * KEY_BYTES]
            ref = prefix + i.to_bytes(2, "big")
            made.append((DataKey(ref, key), aes_key_wrap(self._key, key)))
        return made

    def wrapped(self, key: bytes) -> bytes:
        """What is stored of a key."""
        return aes_key_wrap(self._key, key)

    def unwrapped(self, rows: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes | None]:
        """Reference to key, of rows (ref, wrapped); None for one that was changed, and therefore
        does not open. Cost: 1.3 us a key.
        """
        return {bytes(ref): self._unwrapped(bytes(wrapped)) for ref, wrapped in rows}

    def _unwrapped(self, wrapped: bytes) -> bytes | None:
        try:
            return aes_key_unwrap(self._key, wrapped)
        except (InvalidUnwrap, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class KekSource:
    """Where the key-encryption key is to be found: text that was given, or else a file."""

    file: Path
    text: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """For messages."""
        return f"file {self.file}" if self.text is None else "text in the environment"

    def find(self, *, may_create: bool) -> Kek:
        """The key; made (mode 0600) if there is no file yet and may_create.

        Raises WrongKeyError for one that is lost or malformed.
        """
        if self.text is not None:
            return Kek.from_text(self.text.strip())
        try:
            if not may_create and not self.file.exists():
                raise WrongKeyError(
                    f"the key-encryption key is missing: put the copy of {self.file} back "
                    "(without it no stored payload can be read)"
                )
            return Kek(read_or_create(self.file, KEY_BYTES))
        except OSError as error:
            raise WrongKeyError(f"key-encryption key {self.file}: {error.strerror}") from error
