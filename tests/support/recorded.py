"""Stored records as a replay reads them, and with one byte of them changed."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from service.registry import Registry
from service.replaying import Recorded, replay
from service.secrets import Keyring
from service.settings import Settings
from service.storing import evidence_store


def recorded_in(data_dir: Path, request_id: str, *, tenant: str = "default") -> Recorded:
    """What the data directory's store has of a request."""
    with evidence_store(Settings.load({}, data_dir=data_dir)) as store:
        record = store.record(tenant, request_id)
    assert record is not None
    return Recorded.of(record)


def replayed_here(data_dir: Path, recorded: Recorded, registry: Path | None = None) -> Any:
    """The report of a replay in this process."""
    settings = Settings.load({}, data_dir=data_dir)
    keyring = Keyring.open(settings.secret_file)
    report = replay(recorded, Registry(registry or settings.registry), keyring, lambda _: None)
    return orjson.loads(orjson.dumps(report))


def one_digit_off(recorded: Recorded, name: str, within: str) -> Recorded:
    """The same but for a digit of the first number under `name` in a piece of its end, `within`."""
    assert recorded.final is not None
    piece = recorded.final[within]
    start = piece.index(b'"%s":' % name.encode())
    digit = re.compile(rb"\.\d*?(?=[1-9])").search(piece, start)
    assert digit is not None
    place = digit.end()
    other = b"%d" % (int(piece[place : place + 1]) % 9 + 1)
    changed = piece[:place] + other + piece[place + 1 :]
    assert (len(changed), changed != piece) == (len(piece), True)
    return replace(recorded, final={**recorded.final, within: changed})
