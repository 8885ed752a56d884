"""Erasure on request: what a subject, or whoever made a request, has a right to have forgotten."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from service.disposal.destroying import WHOLE, Destruction, destroy
from service.disposal.forgetting import forget_keys
from service.disposal.parting import destroy_parts
from service.disposal.targets import (
    Target,
    about_subject,
    copies_of,
    events_about,
    held_among,
    in_batches,
    load,
)
from service.evidence import EvidenceStore, RequestKey
from service.evidence.exclusive import exclusively

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Erasing:
    """What came of wanting records erased.

    erased: or, before it is done, what would be; held: refused, by request ID; gone: were so
    before.
    """

    erased: int = 0
    gone: int = 0
    held: tuple[RequestKey, ...] = ()

    def __add__(self, other: "Erasing") -> "Erasing":
        return Erasing(self.erased + other.erased, self.gone + other.gone, self.held + other.held)


def survey(store: EvidenceStore, keys: Iterable[RequestKey]) -> Erasing:
    """What `erase` would do now."""
    total = Erasing()
    for batch in in_batches(keys):
        with store.reading() as connection:
            total += _sorted_out(connection, load(connection, batch))[1]
    return total


def _sorted_out(connection: Connection, targets: list[Target]) -> tuple[list[Target], Erasing]:
    held = held_among(connection, [target.key for target in targets])
    here = [target for target in targets if not target.is_gone]
    free = [target for target in here if target.key not in held]
    refused = tuple(target.key for target in here if target.key in held)
    return free, Erasing(len(free), len(targets) - len(here), refused)


def erase(
    store: EvidenceStore,
    keys: Iterable[RequestKey],
    what: Destruction,
    *,
    progress: Progress = lambda _: None,
) -> Erasing:
    """Erase the records that no hold keeps, each batch at once.

    With a record go those that explain it again. A subject's part goes only from what names him
    itself. Raises StoreUnavailableError; called again, it goes on where it was. Free pages are
    overwritten as they come free (`secure_delete`); call `forget` at the end.
    """
    what = replace(what, keys=what.keys or store.sealer.keys)
    total, dealt_with = Erasing(), 0
    added: set[RequestKey] = set()
    for batch in in_batches(keys):
        total += _erase(store, [key for key in batch if key not in added], what, added)
        forget_keys(store, what.keys, seconds=0.0, is_all=False)
        dealt_with += len(batch)
        progress(dealt_with)
    return total


def _erase(
    store: EvidenceStore, batch: list[RequestKey], what: Destruction, added: set[RequestKey]
) -> Erasing:
    """added: grows by the copies that were not in the batch. They may be stored at any time until
    this transaction: after it none is.
    """
    with exclusively(store) as connection:
        copies = copies_of(connection, batch)
        added.update(copies)
        targets = load(connection, batch + copies)
        if what.subject != WHOLE:
            targets = about_subject(connection, targets, what.subject)
        free, found = _sorted_out(connection, targets)
        if what.subject == WHOLE:
            destroy(connection, free, events_about(connection, free), what)
        else:
            destroy_parts(connection, free, what, store.sealer)
    return found
