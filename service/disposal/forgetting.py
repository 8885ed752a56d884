"""Keys of what is erased: doomed in the transaction that erases, destroyed once it has committed.

A record reads as erased from that commit on. Were the keys to go first, an erasure that fails after
that would leave a record nobody can read and no event that says why; were they only remembered by
the process, a kill would leave them. So they stand in a table until no file holds them any more.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from sqlalchemy import Connection, delete

from service.evidence import EvidenceStore, StoreUnavailableError
from service.evidence.doomed import DOOMED, doomed_refs, in_use, note_doomed
from service.evidence.exclusive import forget_pages
from service.evidence.tables import doomed_keys
from service.keystore import KeyStoreError
from service.logs import log


class Keys(Protocol):
    """What destroys the keys of payloads."""

    def delete(self, refs: Iterable[bytes]) -> None:
        """Delete the keys with these references; unknown ones are deleted already."""
        ...

    def forget_pages(self, *, seconds: float = 5.0) -> bool:
        """Have no file hold what was deleted; False when others kept it from that for so long."""
        ...


def doom(connection: Connection, keys: Keys | None, refs: Sequence[bytes]) -> None:
    """Note keys to destroy once the transaction, one of `exclusively`, has committed.

    Raises StoreUnavailableError without a key store: nothing counts as erased whose key is kept.
    """
    if not refs:
        return
    if keys is None:
        raise StoreUnavailableError("the payloads are encrypted, and no key store was given")
    connection.info[DOOMED] += refs
    note_doomed(connection, refs)


def forget_keys(
    store: EvidenceStore, keys: Keys | None, *, seconds: float = 5.0, is_all: bool = True
) -> bool:
    """Destroy all doomed keys, outside of any transaction that answers wait for; unless is_all only
    those that this store has doomed. False while files still hold some: call it again.

    One of which nobody here knows that it was doomed is destroyed only if no event has content
    under it; else somebody has put it there, which is logged, and which `explaind verify` names.
    Raises StoreUnavailableError, also where the key store cannot be reached.
    """
    for refs in doomed_refs(store):
        if keys is None:
            return False
        due = [ref for ref in refs if ref in store.doomed]
        if is_all:
            due += _left_behind(store, [ref for ref in refs if ref not in store.doomed])
        if due and not _destroyed(store, keys, due, seconds):
            return False
    return True


def _left_behind(store: EvidenceStore, refs: Sequence[bytes]) -> list[bytes]:
    """Those that are no event's: another process doomed them, and was perhaps killed."""
    planted = dict[bytes, str]()
    for event_id, ref in in_use(store, refs) if refs else ():
        planted[ref] = event_id
    for event_id in sorted(set(planted.values())):
        log.error("doomed_key_in_use", event_id=event_id)
    return [ref for ref in refs if ref not in planted]


def _destroyed(store: EvidenceStore, keys: Keys, refs: Sequence[bytes], seconds: float) -> bool:
    try:
        keys.delete(refs)
        is_forgotten = keys.forget_pages(seconds=seconds)
    except (KeyStoreError, OSError) as error:
        raise StoreUnavailableError(
            f"key store: {error}; what is erased stays so, its keys are still to be destroyed"
        ) from error
    if is_forgotten:
        with store.changing() as connection:
            connection.execute(delete(doomed_keys).where(doomed_keys.c.ref.in_(refs)))
        store.doomed.difference_update(refs)
    return is_forgotten


def forget(store: EvidenceStore) -> bool:
    """Have no file hold what was erased or its keys; False when readers kept it from that.

    Raises StoreUnavailableError.
    """
    is_forgotten = forget_keys(store, store.sealer.keys)
    return forget_pages(store) and is_forgotten
