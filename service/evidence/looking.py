"""An evidence database opened to look at it, as it is."""

from pathlib import Path

from service.databases import connect
from service.evidence.engines import check_version, database_url
from service.evidence.errors import StoreUnavailableError
from service.evidence.sealing import Sealer
from service.evidence.store import EvidenceStore
from service.keystore import KeyStore


def open_as_is(url: str, *, keys: KeyStore | None = None) -> EvidenceStore:
    """The database at a SQLAlchemy URL: nothing is made or taken over, no lost trigger laid again.

    keys: for reading encrypted payloads. Raises SchemaVersionError for another version,
    StoreUnavailableError where there is no database, EvidenceError for an unusable URL.
    """
    address = database_url(url)
    if address.get_backend_name() == "sqlite" and not Path(str(address.database)).exists():
        raise StoreUnavailableError(f"there is no evidence database {address.database}")
    writing, reading = (connect(address, connections=2, busy_timeout_seconds=3.0) for _ in range(2))
    store = EvidenceStore(writing, reading, Sealer(keys))
    try:
        with store.reading() as connection:
            check_version(connection)
    except BaseException:
        store.close()
        raise
    return store
