"""Programs that append to a log or sequence it until they are ended: `NAME URL`."""

import os
import signal
import sys
import time

from ledgers import append, sequencer

from service.evidence import EvidenceStore
from service.ledger.rows import LogRows


def append_many(url: str) -> None:
    """Four hundred events, in commits of one to seven."""
    with EvidenceStore.open(url, busy_timeout_seconds=30.0) as store:
        for turn in range(100):
            append(store, 1 + turn % 7)


def sequence_for_ever(url: str) -> None:
    with EvidenceStore.open(url, busy_timeout_seconds=30.0) as store:
        sequencing = sequencer(store)
        print("ready", flush=True)
        while True:
            sequencing.run()
            time.sleep(0.01)  # no wait for anything: two that never pause leave no core to append


def die_in_the_middle(url: str) -> None:
    """Ended by SIGKILL after its entries are inserted and before their commit."""
    with EvidenceStore.open(url, busy_timeout_seconds=30.0) as store:
        sequencing = sequencer(store)
        rows: LogRows = sequencing._rows
        insert = rows.insert

        def insert_and_die(*arguments: object) -> None:
            insert(*arguments)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)

        rows.insert = insert_and_die  # type: ignore[method-assign]
        sequencing.run()


PROGRAMS = {
    program.__name__: program for program in (append_many, sequence_for_ever, die_in_the_middle)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2])
