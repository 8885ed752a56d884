"""Appends while files may not grow, then while they may again; prints what was said of each."""

import asyncio
import resource
import sys
from datetime import UTC, datetime, timedelta

import orjson

from service.evidence import (
    AppendOutcome,
    DecisionEvent,
    EvidenceLog,
    HeaderTemplate,
    StoreUnavailableError,
    laid_out,
)
from service.uuid7 import uuid7

TEMPLATE = HeaderTemplate("credit", 3, timedelta(days=1), b'"model":"credit"}')


async def append(log: EvidenceLog) -> tuple[str, str]:
    payload, parts = laid_out([b'{"answer":', b'"%s"' % (b"a" * 3000), b"}"], ["answer"])
    now = datetime.now(UTC)
    event = DecisionEvent(
        template=TEMPLATE,
        request_id=uuid7(),
        received_at=now,
        completed_at=now,
        status=None,
        lane=None,
        payload=payload,
        parts=parts,
    )
    try:
        outcome = await log.append(event)
    except StoreUnavailableError:
        return event.request_id, "unavailable"
    assert outcome is AppendOutcome.STORED
    return event.request_id, "stored"


def limit_file_size(size_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))


async def main(url: str) -> None:
    log = await EvidenceLog.open(url)
    phases = {}
    for name, size_bytes in (("free", -1), ("full", 200_000), ("freed", -1)):
        limit_file_size(size_bytes)
        said = await asyncio.gather(*(append(log) for _ in range(200)))
        phases[name] = {"said": dict(said), "writable": await log.is_writable()}
    await log.close()
    sys.stdout.buffer.write(orjson.dumps(phases))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
