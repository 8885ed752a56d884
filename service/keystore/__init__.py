"""The keys payloads are encrypted with, apart from them: destroying a key erases its payload."""

from service.keystore.errors import KeyStoreError, KeysUnavailableError, WrongKeyError
from service.keystore.rewrapping import Rewrapped, rewrap
from service.keystore.store import KeyStore
from service.keystore.wrapping import REF_BYTES, DataKey, Kek, KekSource

__all__ = [
    "REF_BYTES",
    "DataKey",
    "Kek",
    "KekSource",
    "KeyStore",
    "KeyStoreError",
    "KeysUnavailableError",
    "Rewrapped",
    "WrongKeyError",
    "rewrap",
]
