"""Events on their way into the database: compressed and encrypted, each under keys of its own, so
that destroying a key destroys what it says.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from threading import Lock, local
from time import monotonic
from typing import NamedTuple, TypeVar

import zstandard

from service.evidence.boxes import ENCRYPTED, StoredRow, boxed, encrypted, refs_of
from service.evidence.errors import EventRefusedError, StoreUnavailableError, UnreadablePayloadError
from service.evidence.events import (
    Event,
    Row,
    commitment,
    header_about,
    row_of,
    seal,
    whole_payload,
)
from service.evidence.sections import UncuttableError, cut, owners_of
from service.evidence.tables import INSERTED_COLUMNS
from service.evidence.unsealing import Unsealed, unsealed
from service.keystore import DataKey, KeyStore, KeyStoreError, KeysUnavailableError
from service.logs import log

NOTHING = b"{}"
COMPRESSION_LEVEL = 1
AT_ONCE_BYTES = 65_536
"""A payload up to this is compressed and encrypted by who seals it: the event loop does so while
the writer is idle. In the writer each compression gives up the interpreter's lock, which a busy
loop returns late. Larger ones are left to the writer, so that the loop goes on.
"""

ROOM_BYTES = 4 * AT_ONCE_BYTES
"""So many bytes of all payloads of one batch are sealed so; the rest by the writer."""

KEYS_SECONDS = 0.2
"""All events of a batch together wait so long for keys: those behind them have theirs already."""

_TENANT = INSERTED_COLUMNS.index("tenant")
_REQUEST_ID = INSERTED_COLUMNS.index("request_id")

Outcome = TypeVar("Outcome")


class _Cut:
    """An event in sections once it has its keys: by the first who needs its row, of the writers of
    the store and of the spool, so that both store the same one.
    """

    __slots__ = ("lock", "sealed")

    def __init__(self) -> None:
        self.lock = Lock()
        self.sealed: Sealed | None = None


class Sealed(NamedTuple):
    """An event that has its keys; what is left is compression and encryption.

    row: where nothing is left. owners: of an event in several sections, whose header is still to be
    made: the section of each row. may_be_spooled: the store is not the only one who keeps it.
    """

    event: Event
    header: bytes = b""
    keys: Sequence[DataKey] = ()
    texts: Sequence[bytes] = ()
    row: Row | None = None
    owners: tuple[int, ...] | None = None
    cut: _Cut | None = None
    may_be_spooled: bool = False

    @property
    def request(self) -> tuple[str, str]:
        """Tenant and request ID."""
        return self.event.tenant, self.event.request_id


class Ready(NamedTuple):
    """A row that has been sealed before, and waited."""

    row: Row

    @property
    def request(self) -> tuple[str, str]:
        """Tenant and request ID."""
        return str(self.row[_TENANT]), str(self.row[_REQUEST_ID])


class _Compressors(local):
    """A compressor for each thread: it is not safe to call one from several."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress


_COMPRESSORS = _Compressors()


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except KeysUnavailableError as error:
        raise StoreUnavailableError(f"key store: {error}") from error
    except KeyStoreError as error:
        raise UnreadablePayloadError(str(error)) from error


class Sealer:
    """Gives events their keys, encrypts them, and opens what was stored.

    keys None, or encrypts False: payloads are stored as JSON beside a key for the commitment alone.
    Safe to call from several threads.
    """

    def __init__(self, keys: KeyStore | None, *, encrypts: bool = True) -> None:
        self.keys = keys
        self._sealing = keys if encrypts else None

    @property
    def can_seal(self) -> bool:
        """There are keys left, if any are needed."""
        return self._sealing is None or self._sealing.has_keys

    def fill(self) -> None:
        """Wait for the first keys, so that no `seal` does. Raises StoreUnavailableError."""
        if self._sealing is not None:
            with _translated_errors():
                self._sealing.fill()

    def seal(
        self, event: Event, *, may_be_spooled: bool = False, room: int = AT_ONCE_BYTES
    ) -> Sealed:
        """The event bound to its keys. Cost: about 25 us, of a large payload that of hashing it;
        what is to be cut is only looked at. room: a payload of more bytes is left to the writer.

        Raises StoreUnavailableError when no key is left, and whatever keeps an event from being
        encoded: `refusal_of` says so without its values.
        """
        if self._sealing is None or event.payload == NOTHING:
            return Sealed(event, row=seal(event))
        owners = owners_of(event.subjects)
        if owners is not None:
            return Sealed(event, owners=owners, cut=_Cut(), may_be_spooled=may_be_spooled)
        try:
            key = self._sealing.take()
        except KeysUnavailableError as error:
            raise StoreUnavailableError(f"key store: {error}") from error
        try:
            if len(event.payload) > min(room, AT_ONCE_BYTES):
                return _whole(event, key, may_be_spooled=may_be_spooled)
            header = header_about(event, whole_payload(event, key.key))
            row = _row(event, header, (key,), (event.payload,))
        except BaseException:
            self._sealing.give_back((key,))
            raise
        return Sealed(event, keys=(key,), row=row, may_be_spooled=may_be_spooled)

    def give_back(self, sealed: Iterable[Sealed]) -> None:
        """Have the keys of events destroyed that are stored nowhere, nor ever will be."""
        if self._sealing is None:
            return
        for one in sealed:
            made = one if one.cut is None else one.cut.sealed
            if made is not None:
                self._sealing.give_back(made.keys)

    def insert(
        self,
        sealed: Sequence[Sealed | Ready],
        insert: Callable[[Sequence[Row]], Sequence[Outcome | StoreUnavailableError]],
    ) -> list[Outcome | StoreUnavailableError]:
        """What `insert` says of their rows, or why they have none. Raises what it raises."""
        rows, refused = self.rows(sealed)
        outcomes = insert(rows) if rows else ()
        if not refused:
            return list(outcomes)
        stored = iter(outcomes)
        return [refused.get(one.request) or next(stored) for one in sealed]

    def rows(
        self, sealed: Sequence[Sealed | Ready]
    ) -> tuple[list[Row], dict[tuple[str, str], StoreUnavailableError]]:
        """The rows to insert, and the requests of which no event has one, as its keys are missing
        or it cannot be encoded.

        Cost: about 10 us each; those in several sections as much as reading and writing them.
        """
        refused: dict[tuple[str, str], StoreUnavailableError] = {}
        complete = []
        until = monotonic() + KEYS_SECONDS
        for one in sealed:
            try:
                complete.append(self._complete(one, until))
            except StoreUnavailableError as error:
                refused[one.request] = error
            except Exception as error:  # noqa: BLE001 - it costs this request alone
                refused[one.request] = refusal_of(error)
        left = [one for one in complete if one.request not in refused] if refused else complete
        return [_encrypted(one) if one.row is None else one.row for one in left], refused

    def open(
        self, rows: Iterable[StoredRow], *, erased: Collection[str] = ()
    ) -> list[Unsealed | None]:
        """As `open_each`; raises UnreadablePayloadError for the first that cannot be opened too."""
        opened: list[Unsealed | None] = []
        for found in self.open_each(rows, erased=erased):
            if isinstance(found, UnreadablePayloadError):
                raise found
            opened.append(found)
        return opened

    def open_each(
        self, rows: Iterable[StoredRow], *, erased: Collection[str] = ()
    ) -> list[Unsealed | UnreadablePayloadError | None]:
        """What is left of these payloads, in their order: None of what was erased as a whole, the
        error of what cannot be opened: an encoding of the future, a payload that was changed, a
        key that is missing or damaged.

        erased: IDs of the events of which, by the store, something was erased: only their keys may
        be missing. Else an old copy of the key store would make records look erased.
        Raises StoreUnavailableError, and UnreadablePayloadError for encrypted ones without a key
        store.
        """
        rows = list(rows)
        refs = [ref for row in rows for ref in refs_of(row)]
        keys = self._keys(refs) if refs else {}
        opened: list[Unsealed | UnreadablePayloadError | None] = []
        for row in rows:
            try:
                opened.append(unsealed(row, keys, may_lack_keys=row.event_id in erased))
            except UnreadablePayloadError as error:
                opened.append(error)
        return opened

    def _keys(self, refs: Sequence[bytes]) -> Mapping[bytes, bytes | None]:
        if self.keys is None:
            raise UnreadablePayloadError("the payload is encrypted, and no key store was given")
        with _translated_errors():
            return self.keys.keys(refs)

    def _complete(self, sealed: Sealed | Ready, until: float) -> Sealed | Ready:
        if isinstance(sealed, Ready) or sealed.cut is None or sealed.owners is None:
            return sealed
        with sealed.cut.lock:
            if sealed.cut.sealed is None:
                sealed.cut.sealed = self._in_sections(sealed, sealed.owners, until)
            return sealed.cut.sealed

    def _in_sections(self, sealed: Sealed, owners: Sequence[int], until: float) -> Sealed:
        event, keys = sealed.event, self._sealing
        assert keys is not None
        try:
            texts = cut(event.payload, event.parts, owners)
        except UncuttableError as error:
            # Then it belongs to all, and goes as a whole with the first who is erased.
            log.error("payload_not_cut", event_id=event.event_id, reason=str(error))
            texts = []
        with _translated_errors():
            left = max(0.0, until - monotonic())
            taken = keys.take_many(max(1, len(texts)), timeout_seconds=left)
        try:
            if not texts:
                return _whole(event, taken[0], may_be_spooled=sealed.may_be_spooled)
            header = _header_of_sections(event, taken, texts)
        except BaseException:
            keys.give_back(taken)
            raise
        return sealed._replace(header=header, keys=taken, texts=texts, owners=None, cut=None)


def refusal_of(error: Exception) -> EventRefusedError:
    """Of an event that cannot be sealed; without its values, which `error` may name."""
    return EventRefusedError(f"the event cannot be sealed ({type(error).__name__})")


def _header_of_sections(event: Event, keys: Sequence[DataKey], texts: Sequence[bytes]) -> bytes:
    said = [
        {"commitment": commitment(key, text), "size": len(text)}
        for (_, key), text in zip(keys, texts, strict=True)
    ]
    payload = {"commitment": None, "size": None, "parts": None, "sections": said}
    return header_about(event, payload)


def _encrypted(sealed: Sealed | Ready) -> Row:
    """The row of an event that has its keys, not yet one."""
    assert isinstance(sealed, Sealed)
    return _row(sealed.event, sealed.header, sealed.keys, sealed.texts)


def _row(event: Event, header: bytes, keys: Sequence[DataKey], texts: Sequence[bytes]) -> Row:
    boxes = [
        _box(event.event_id, number, key, text)
        for number, ((_, key), text) in enumerate(zip(keys, texts, strict=True))
    ]
    refs = b"".join([ref for ref, _ in keys])
    return row_of(event, refs, ENCRYPTED, header, boxed(boxes))


def _box(event_id: str, number: int, key: bytes, text: bytes) -> bytes:
    return encrypted(event_id, number, key, _COMPRESSORS.compress(text))


def _whole(event: Event, key: DataKey, *, may_be_spooled: bool) -> Sealed:
    header = header_about(event, whole_payload(event, key.key))
    return Sealed(event, header, (key,), (event.payload,), may_be_spooled=may_be_spooled)
