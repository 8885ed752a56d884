"""Keys for everything keyed: derived from one secret file, per tenant and purpose."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.errors import UnavailableError
from service.keyed_hash import keyed_hash
from service.secret_files import read_or_create

SECRET_BYTES = 32
POLICY_KEYS = "policy"
REVIEW_KEYS = "review"
AGGREGATE_KEYS = "aggregate"
QUALITY_KEYS = "quality"
"""Purposes of the draws of a policy, of the sample for review, of that for aggregates with its
noise and of that whose quality is measured, which must be independent.
"""

LOG_KEYS = "log"
"""Purpose of the key that signs the logs' checkpoints, of no tenant."""

WEBHOOK_KEYS = "webhook"
"""Purpose of the key that signs webhook calls, of no tenant. The receiver has it too."""


class Keyring:
    """HKDF-SHA256 keys of 32 bytes; the same secret file gives the same keys on every replica."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise UnavailableError(
                f"the secret file must hold exactly {SECRET_BYTES} bytes, found {len(secret)}"
            )
        self.key = lru_cache(maxsize=1024)(self._derive)
        self._secret = secret

    @classmethod
    def open(cls, path: Path) -> "Keyring":
        """Read the secret, making it (mode 0600) if the file does not exist yet."""
        try:
            return cls(read_or_create(path, SECRET_BYTES))
        except OSError as error:
            raise UnavailableError(f"secret file {path}: {error.strerror}") from error

    def _derive(self, tenant: str, purpose: str) -> bytes:
        info = f"explaind/1/{len(purpose)}:{purpose}/{tenant}".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret)

    def digest(self, tenant: str, purpose: str, message: bytes) -> str:
        """HMAC-SHA256 under the tenant's key for the purpose, in hexadecimal."""
        return keyed_hash(self.key(tenant, purpose), message).hex()

    def keyed_subject(self, tenant: str, name: str) -> str:
        """Under what records about somebody are filed; nobody without the secret finds his name."""
        return self.digest(tenant, "subject", name.encode())

    def keyed_subjects(self, tenant: str, names: Sequence[str | None] | None) -> str | None:
        """Those of a record's rows, as JSON; None where it names none."""
        if names is None:
            return None
        keyed = [None if name is None else self.keyed_subject(tenant, name) for name in names]
        return orjson.dumps(keyed).decode()

    def seed(self, tenant: str, model_digest: str, instance: bytes) -> int:
        """The seed of one instance's draws, below 2^53 so that every JSON reader keeps it.

        Keyed: a plain hash of an instance could be guessed. The same instance has the same seed
        alone and in a batch.
        """
        message = model_digest.encode() + b"/" + instance
        code = keyed_hash(self.key(tenant, "seed"), message)
        return int.from_bytes(code[:7], "big") >> 3


def review_rank(
    keyring: Keyring, tenant: str, model: str, purpose: str = REVIEW_KEYS
) -> Callable[[str], bytes]:
    """The order of the sample for review of a model's requests: by a hash nobody else can compute,
    independent of what was explained and of the policy's version.
    """
    key, prefix = keyring.key(tenant, purpose), f"{model}/".encode()
    return lambda request_id: keyed_hash(key, prefix + request_id.encode())
