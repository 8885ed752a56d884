"""Keys of what is erased: doomed in the transaction that erases, destroyed once it has committed.

A record reads as erased from that commit on. Were the keys to go first, an erasure that fails after
that would leave a record nobody can read and no event that says why; were they only remembered by
the process, a kill would leave them. So they stand in a table until no file holds them any more.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from service.evidence import EvidenceStore, StoreUnavailableError
from service.evidence.exclusive import forget_pages
from service.evidence.tables import doomed_keys
from service.keystore import KeyStoreError

_AT_ONCE = 1000


class Keys(Protocol):
    """What destroys the keys of payloads."""

    def delete(self, refs: Iterable[bytes]) -> None:
        """Delete the keys with these references; unknown ones are deleted already."""
        ...

    def forget_pages(self, *, seconds: float = 5.0) -> bool:
        """Have no file hold what was deleted; False when others kept it from that for so long."""
        ...


def doom(connection: Connection, keys: Keys | None, refs: Sequence[bytes]) -> None:
    """Note keys to destroy once the transaction has committed.

    Raises StoreUnavailableError without a key store: nothing counts as erased whose key is kept.
    """
    if not refs:
        return
    if keys is None:
        raise StoreUnavailableError("the payloads are encrypted, and no key store was given")
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    rows = [{"ref": ref} for ref in refs]
    connection.execute(insert(doomed_keys).on_conflict_do_nothing(), rows)


def forget_keys(store: EvidenceStore, keys: Keys | None, *, seconds: float = 5.0) -> bool:
    """Destroy all doomed keys, whoever doomed them, outside of any transaction that answers wait
    for. False while files still hold some: call it again.

    Raises StoreUnavailableError, also where the key store cannot be reached.
    """
    while refs := _doomed(store):
        if keys is None:
            return False
        try:
            keys.delete(refs)
            is_forgotten = keys.forget_pages(seconds=seconds)
        except (KeyStoreError, OSError) as error:
            raise StoreUnavailableError(
                f"key store: {error}; what is erased stays so, its keys are still to be destroyed"
            ) from error
        if not is_forgotten:
            return False
        with store.changing() as connection:
            connection.execute(delete(doomed_keys).where(doomed_keys.c.ref.in_(refs)))
    return True


def forget(store: EvidenceStore) -> bool:
    """Have no file hold what was erased or its keys; False when readers kept it from that.

    Raises StoreUnavailableError.
    """
    is_forgotten = forget_keys(store, store.sealer.keys)
    return forget_pages(store) and is_forgotten


def _doomed(store: EvidenceStore) -> list[bytes]:
    with store.reading() as connection:
        return [bytes(ref) for ref in connection.scalars(select(doomed_keys.c.ref).limit(_AT_ONCE))]
