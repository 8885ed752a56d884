"""Appends without end and writes each request ID to stdout once it is acknowledged."""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta

from service.evidence import AppendOutcome, DecisionEvent, EvidenceLog, HeaderTemplate, laid_out
from service.uuid7 import uuid7

TEMPLATE = HeaderTemplate("credit", 3, timedelta(days=1), b'"model":"credit"}')


def decision() -> DecisionEvent:
    payload, parts = laid_out([b'{"answer":', b'"%s"' % (b"a" * 3000), b"}"], ["answer"])
    now = datetime.now(UTC)
    return DecisionEvent(
        template=TEMPLATE,
        request_id=uuid7(),
        received_at=now,
        completed_at=now,
        status=None,
        lane=None,
        payload=payload,
        parts=parts,
    )


async def append_forever(log: EvidenceLog) -> None:
    while True:
        event = decision()
        if await log.append(event) is not AppendOutcome.STORED:
            raise SystemExit(1)
        os.write(1, f"{event.request_id}\n".encode())


async def main(url: str) -> None:
    log = await EvidenceLog.open(url)
    await asyncio.gather(*(append_forever(log) for _ in range(32)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
