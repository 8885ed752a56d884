"""Appends to a locked store without end; writes each request ID to stdout once it is spooled."""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "support"))

from append_until_killed import decision
from spools import spooling_log

from service.evidence import AppendOutcome, EvidenceLog
from service.logs import configure_logs


async def append_forever(log: EvidenceLog) -> None:
    while True:
        event = decision()
        outcome = await log.append_best_effort(event)
        if outcome is not AppendOutcome.SPOOLED:
            sys.exit(f"{outcome} instead of spooled")
        os.write(1, f"{event.request_id}\n".encode())


async def main(folder: Path) -> None:
    configure_logs()  # to stderr
    async with spooling_log(folder) as (log, _):
        await asyncio.gather(*(append_forever(log) for _ in range(32)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
