"""The service with a store that takes every event and keeps none: what storing costs is the rest.

    python tests/benchmarks/null_store.py --data-dir FOLDER

Everything up to the insert is done as always: sealing, encryption, the writer's thread.
"""

import argparse
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from service.app import create_app
from service.compiling import choose_kernel_cache
from service.evidence import AppendOutcome
from service.runtime import Runtime
from service.server import uvicorn_config
from service.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    settings = Settings.load(data_dir=parser.parse_args().data_dir)
    choose_kernel_cache(settings.data_dir)
    app = create_app(settings, customise=_forget)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(uvicorn_config(app))
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = (sockets or [])[0].getsockname()[1]
        print(f"serving on http://127.0.0.1:{port}", file=sys.stderr, flush=True)


def _forget(runtime: Runtime) -> None:
    def keep_nothing(rows: Sequence[object]) -> list[AppendOutcome]:
        return [AppendOutcome.STORED] * len(rows)

    runtime.evidence._writer._insert = keep_nothing  # type: ignore[assignment]


if __name__ == "__main__":
    main()
