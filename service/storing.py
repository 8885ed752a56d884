"""The evidence store of the settings, with the keys its payloads are encrypted with."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from service.errors import UnavailableError
from service.evidence import CommitObserver, EvidenceError, EvidenceLog, EvidenceStore
from service.keystore import KekSource, KeyStore, KeyStoreError
from service.logs import log
from service.settings import KEY_ENCRYPTION_KEY, Settings


@asynccontextmanager
async def evidence_log(
    settings: Settings, *, observer: CommitObserver | None = None
) -> AsyncIterator[EvidenceLog]:
    """The log of a running service; database, key store and key-encryption key are made if missing.

    Raises UnavailableError, also for a key-encryption key that is lost or another's.
    """
    keys = await asyncio.to_thread(_opened, settings, may_create=settings.encryption)
    try:
        evidence = await _log(settings, keys, observer)
        try:
            yield evidence
        finally:
            await evidence.close()
    finally:
        if keys is not None:
            await asyncio.to_thread(keys.close)


async def _log(
    settings: Settings, keys: KeyStore | None, observer: CommitObserver | None
) -> EvidenceLog:
    url, encrypts = settings.database_url, settings.encryption
    try:
        return await EvidenceLog.open(url, keys=keys, encrypts=encrypts, observer=observer)
    except EvidenceError as error:
        raise UnavailableError(f"evidence store: {error}") from error


@contextmanager
def evidence_store(settings: Settings) -> Iterator[EvidenceStore]:
    """The store for a command that reads; a key store is opened where there is one.

    Raises UnavailableError, and for what the store raises inside the block.
    """
    url, encrypts = settings.database_url, settings.encryption
    try:
        with (
            existing_keys(settings) as keys,
            EvidenceStore.open(url, keys=keys, encrypts=encrypts) as store,
        ):
            yield store
    except EvidenceError as error:
        raise UnavailableError(str(error)) from error


@contextmanager
def existing_keys(settings: Settings) -> Iterator[KeyStore | None]:
    """The key store for who reads, None where there is none yet. Raises UnavailableError."""
    keys = _opened(settings, may_create=False)
    try:
        yield keys
    finally:
        if keys is not None:
            keys.close()


def kek_source(settings: Settings) -> KekSource:
    """Where the key-encryption key of the settings is to be found."""
    return KekSource(settings.key_encryption_key_file, os.environ.get(KEY_ENCRYPTION_KEY) or None)


def _opened(settings: Settings, *, may_create: bool) -> KeyStore | None:
    source = kek_source(settings)
    try:
        if not may_create and not KeyStore.is_there(settings.keys_database_url):
            return None
        keys = KeyStore.open(settings.keys_database_url, source)
    except KeyStoreError as error:
        raise UnavailableError(f"key store: {error}") from error
    if may_create and settings.keeps_keys_beside_evidence:
        log.warning(
            "keys_beside_evidence",
            reason="a backup of the database holds payloads and their keys: after an erasure it "
            "opens what was erased. Set EXPLAIND_KEYS_DATABASE_URL",
        )
    return keys
