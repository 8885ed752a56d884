"""A process that owns an embedded queue, as `explaind serve` does, and says what it started."""

import asyncio
import json
import sys
from pathlib import Path

from service.errors import CommandError
from service.logs import configure_logs
from service.queue.embedded import Embedded
from service.settings import Settings


async def main(data_dir: str) -> None:
    configure_logs()
    program = Path(__file__).with_name("worker_program.py")
    try:
        embedded = await Embedded.start(
            Settings.load(data_dir=data_dir),
            worker=[sys.executable, str(program)],
        )
    except CommandError as error:
        print(f"explaind: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    ids = {name: embedded.process_id(name) for name in ("server", "worker")}
    print(json.dumps({"url": embedded.redis_url, **ids}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await embedded.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
