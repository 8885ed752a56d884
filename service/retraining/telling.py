"""Webhook calls about triggers: each claimed by one replica at a time, tried again until it is
taken, signed, and without anybody's data.

At least once: who dies between the call and noting it has it made again, so receivers know a call
by its `Explaind-Delivery`.
"""

import hmac
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import orjson
from sqlalchemy import ColumnElement, and_, func, or_, select, update

from service.evidence import EvidenceStore
from service.evidence.events import microseconds
from service.evidence.reading import moment_of
from service.evidence.tables import retrain_steps, retrain_triggers
from service.logs import log

FORMAT = "explaind-retrain/1"
TIMEOUT_SECONDS = 5.0
LEASE_SECONDS = 60.0
"""After how long a claimed call is another's: longer than it takes."""

FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 3600.0
GIVEN_UP_AFTER = timedelta(days=7)
FORGOTTEN_AFTER = GIVEN_UP_AFTER + timedelta(hours=2)
"""Later than the last try of a call, which is made so that its end is noted."""

_trigger, _step = retrain_triggers.c, retrain_steps.c


class Due(NamedTuple):
    """A call to make, claimed."""

    trigger_id: str
    step: str
    attempts: int
    at_us: int
    claimed_us: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where triggers are told. key: signs the calls."""

    url: str
    key: bytes
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def tell(self, store: EvidenceStore) -> int:
        """Make every call that is due; how many were taken. For a thread: it waits for receivers.

        Raises StoreUnavailableError.
        """
        taken = 0
        while (due := claim(store, self.clock())) is not None:
            failure = self._call(due)
            note_call(store, due, self.clock(), failure)
            taken += failure is None
        return taken

    def _call(self, due: Due) -> str | None:
        """Why it was not taken, None if it was. A redirection is a refusal: it is not followed."""
        stamp = str(int(self.clock().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "explaind",
            "Explaind-Delivery": f"{due.trigger_id}/{due.step}",
            "Explaind-Timestamp": stamp,
            "Explaind-Signature": f"sha256={signature(self.key, stamp, due.body)}",
        }
        try:
            parts = urlsplit(self.url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            with closing(_connection(parts)) as connection:
                connection.request("POST", target, due.body, headers)
                status = connection.getresponse().status
        except (OSError, HTTPException, ValueError) as error:
            # ValueError: a host or path that cannot be encoded.
            return type(error).__name__
        return None if 200 <= status < 300 else f"HTTP {status}"


def signature(key: bytes, stamp: str, body: bytes) -> str:
    """HMAC-SHA256 of `stamp.body`, in hexadecimal: the time is signed too."""
    return hmac.digest(key, stamp.encode() + b"." + body, "sha256").hex()


def claim(store: EvidenceStore, now: datetime) -> Due | None:
    """The next call that is due, put off so that no other replica makes it meanwhile.

    Not of what is over (but for approvals) or older than a week: who turns the webhook on is told
    what stands. Raises StoreUnavailableError.
    """
    now_us = microseconds(now)
    until_us = now_us + int(LEASE_SECONDS * 1e6)
    joined = retrain_steps.join(retrain_triggers, _trigger.trigger_id == _step.trigger_id)
    columns = (
        *(_step.trigger_id, _step.step, _step.verdict, _step.at_us, _step.attempts, _step.next_us),
        *(_trigger.model, _trigger.version, _trigger.cause, _trigger.facts),
    )
    query = select(*columns).select_from(joined).where(_step.next_us <= now_us, _is_told(now))
    query = query.order_by(_step.next_us).limit(1)
    while True:
        with store.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        own = update(retrain_steps).where(
            _step.trigger_id == row.trigger_id,
            _step.step == row.step,
            _step.next_us == row.next_us,
        )
        with store.changing() as connection:
            is_ours = connection.execute(own.values(next_us=until_us)).rowcount > 0
        if is_ours:
            document = {
                "format": FORMAT,
                "trigger": row.trigger_id,
                "event": row.verdict or row.step,
                "at": moment_of(row.at_us),
                "model": row.model,
                "version": row.version,
                "cause": row.cause,
                "facts": orjson.loads(row.facts),
            }
            body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
            return Due(row.trigger_id, row.step, row.attempts, row.at_us, until_us, body)


def note_call(store: EvidenceStore, due: Due, now: datetime, failure: str | None) -> None:
    """Say what became of a call: done, due again later, or given up a week after its time.

    Raises StoreUnavailableError.
    """
    now_us = microseconds(now)
    facts = {"trigger": due.trigger_id, "step": due.step, "attempts": due.attempts + 1}
    values: dict[str, int | None] = {"attempts": due.attempts + 1}
    if failure is None:
        values |= {"sent_us": now_us, "next_us": None}
        log.info("retrain_told", **facts)
    elif moment_of(due.at_us) + GIVEN_UP_AFTER <= now:
        values |= {"next_us": None}
        log.error("retrain_webhook_given_up", reason=failure, **facts)
    else:
        delay = min(FIRST_RETRY_SECONDS * 2 ** min(due.attempts, 20), LONGEST_RETRY_SECONDS)
        values |= {"next_us": now_us + int(delay * 1e6)}
        log.warning("retrain_webhook_failed", reason=failure, retry_seconds=delay, **facts)
    own = update(retrain_steps).where(
        _step.trigger_id == due.trigger_id,
        _step.step == due.step,
        _step.next_us == due.claimed_us,
    )
    with store.changing() as connection:
        connection.execute(own.values(values))


def waiting(store: EvidenceStore, now: datetime) -> int:
    """How many calls are still to be taken. Raises StoreUnavailableError."""
    joined = retrain_steps.join(retrain_triggers, _trigger.trigger_id == _step.trigger_id)
    query = select(func.count()).select_from(joined)
    query = query.where(_step.next_us.is_not(None), _is_told(now))
    with store.reading() as connection:
        return connection.execute(query).scalar_one()


def _is_told(now: datetime) -> ColumnElement[bool]:
    is_of_now = or_(_trigger.standing.is_not(None), _step.verdict == "approved")
    return and_(is_of_now, _step.at_us > microseconds(now - FORGOTTEN_AFTER))


def _connection(parts: SplitResult) -> HTTPConnection:
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
