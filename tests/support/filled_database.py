"""An evidence database with both logs filled and signed, for tests to change."""

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from decisions import change, decision, drop_rails, final, pending
from disposals import ERASURE
from ledgers import KEYRING, append, query, sequencer
from sqlalchemy import insert

from service.bundles.inspecting import Inspector
from service.disposal import erase
from service.evidence import EvidenceStore
from service.evidence.looking import open_as_is
from service.evidence.tables import accesses
from service.ledger import ACCESS, Ledger
from service.ledger.checkpoints import CheckpointFile
from service.secrets import Keyring
from service.uuid7 import uuid7
from service.verify import Json

SIZE = 300
PLACE = 5
LATER = timedelta(days=1).total_seconds()


@dataclass
class Database:
    """An evidence database with both logs filled and signed."""

    url: str
    directory: Path

    def verdict(self, *, keyring: Keyring = KEYRING, witness: str | None = None) -> Json:
        with open_as_is(self.url) as store:
            return Inspector(store, Ledger(store, keyring), self.directory).inspect(witness)

    def event_at(self, seq: int) -> str:
        found = query(
            self.url,
            f"SELECT event_id FROM log_entries WHERE log = 'evidence' AND seq = {seq}",  # noqa: S608
        )
        return str(found[0][0])

    def places_of(self, event_type: str) -> list[tuple[int, str]]:
        """Places and IDs of the first event of a type and the last."""
        found = query(
            self.url,
            "SELECT seq, log_entries.event_id FROM log_entries JOIN events USING (event_id)"  # noqa: S608
            f" WHERE log = 'evidence' AND event_type = '{event_type}' ORDER BY seq",
        )
        return [(int(seq), str(event_id)) for seq, event_id in (found[0], found[-1])]

    def change(self, statements: str) -> None:
        """From outside, past the triggers; EVENT is the one at PLACE, NEXT the one after it."""
        event, following = self.event_at(PLACE), self.event_at(PLACE + 1)
        drop_rails(self.url)
        for statement in statements.split(";"):
            named = statement.replace("EVENT", f"'{event}'").replace("NEXT", f"'{following}'")
            change(self.url, named)
        EvidenceStore.open(self.url).close()  # which lays them again, as who covers his tracks

    def checkpoint(self) -> str:
        with open_as_is(self.url) as store:
            found = Ledger(store, KEYRING).checkpoint()
        assert found is not None
        return found.note

    def sequence(self) -> None:
        with open_as_is(self.url) as store:
            for log in (None, ACCESS):
                of_log = {} if log is None else {"log": log}
                following = sequencer(store, directory=self.directory, **of_log)
                following.run(is_last=True)
                if following.signed is not None:
                    file = CheckpointFile(self.directory, following.log.name)
                    file.write(following.signed.note)


def filled(url: str, directory: Path) -> Database:
    """One whose logs and checkpoints have all that it was filled with."""
    fill(url)
    database = Database(url, directory)
    database.sequence()
    return database


def evidence(verdict: Json) -> Json:
    """What a verdict on a database says of the log `evidence`."""
    found: Json = verdict["logs"]["evidence"]
    return found


def fill(url: str) -> None:
    with EvidenceStore.open(url) as store:
        append(store, SIZE - 6)
        store.append(replace(decision("subject-000"), subjects=json.dumps([None, "aa", "bb"])))
        queued = pending("queued-000")
        store.append(queued)
        store.append_final(final(queued))
        store.append(decision("request-erased"))
        erase(store, [("default", "request-erased")], ERASURE)
        row = {"tenant": "default", "principal": "p", "kind": "read", "at_us": 1}
        rows = [{**row, "event_id": uuid7()} for _ in range(3)]
        with store.changing() as connection:
            for each in rows:
                header = json.dumps({name: each[name] for name in ("event_id", "principal")})
                connection.execute(insert(accesses), {**each, "header": header.encode()})


HEADER = "replace(CAST(header AS TEXT), 'credit', 'debit!')"
SQLITE_HEADER = f"CAST({HEADER} AS BLOB)"
POSTGRESQL_HEADER = "convert_to(replace(convert_from(header, 'UTF8'), 'credit', 'debit!'), 'UTF8')"


def headered(url: str) -> str:
    return SQLITE_HEADER if url.startswith("sqlite") else POSTGRESQL_HEADER
