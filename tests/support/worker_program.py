"""A worker process over `job_store`: the product's own in all but where the work comes from."""

import sys
from pathlib import Path

from job_store import open_stored_work

from service.logs import configure_logs
from service.settings import Settings
from service.worker.running import Options, run_worker


def main(concurrency: str, metrics_socket: str = "") -> None:
    configure_logs()
    socket = Path(metrics_socket) if metrics_socket else None
    options = Options(concurrency=int(concurrency), metrics_socket=socket)
    run_worker(Settings.load(), open_stored_work, options)


if __name__ == "__main__":
    main(*sys.argv[1:])
